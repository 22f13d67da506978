"""Does the drawer draw what its painter foretells, by seed alone, and is it read back as it was written?

Shape legend: B items, N codes of a picture.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sensorium.core.errors import ConfigError, GenerationError, WeightsError
from sensorium.core.hands import CancelledError, Making
from sensorium.generators.drawer import Drawer, DrawerConfig
from sensorium.generators.painter import Strokes, choose
from sensorium.training.tokenizer_checkpoint import write_model

PLAIN = Making(guidance=1.0)


@pytest.fixture
def drawer() -> Drawer:
    torch.manual_seed(1)
    made = DrawerConfig.tiny().build()
    with torch.no_grad():
        for weight in made.painter.parameters():
            weight.mul_(3)  # Scores far enough apart that chance does not decide all.
    return made


@pytest.fixture
def condition_BLC() -> torch.Tensor:
    return torch.randn(2, 2, 12, generator=torch.Generator().manual_seed(2))


def test_code_by_code_is_what_the_whole_row_foretells(drawer: Drawer, condition_BLC: torch.Tensor) -> None:
    prefix_BLD = drawer.painter.prefix(condition_BLC)
    told: list[int] = []
    ids_BN = drawer.painter.draw(prefix_BLD, None, Strokes(temperature=0), torch.zeros(2, 16), told.append)
    assert told == list(range(1, 17))
    assert torch.equal(drawer.painter(ids_BN, prefix_BLD).argmax(-1), ids_BN)
    # The code at a place changes nothing before it, and something behind it.
    scores_BNK, other = drawer.painter(ids_BN, prefix_BLD), ids_BN.clone()
    other[:, 7] = (other[:, 7] + 1) % 16
    changed = (drawer.painter(other, prefix_BLD) - scores_BNK).abs().amax(-1)
    assert float(changed[:, :8].max()) < 1e-5
    assert float(changed[:, 8].min()) > 1e-2


def test_a_seed_decides_and_neighbours_change_nothing(drawer: Drawer, condition_BLC: torch.Tensor) -> None:
    both = drawer.generate(condition_BLC, making=Making(seed=5, guidance=3.0))
    again = drawer.generate(condition_BLC[1:], making=Making(seed=5, guidance=3.0))
    other = drawer.generate(condition_BLC, making=Making(seed=6, guidance=3.0))
    assert both[0].array.shape == (16, 16, 3)
    assert both[0].array.dtype == np.uint8
    assert np.abs(both[1].array.astype(int) - again[0].array).max() <= 1
    assert (both[1].array != other[1].array).any()
    assert (both[0].array != both[1].array).any()
    assert drawer.generate(condition_BLC[:0]) == []


def test_guidance_leads_away(drawer: Drawer, condition_BLC: torch.Tensor) -> None:
    """With weight one the negative condition is not looked at; with more it is, and beyond the strongest nothing changes."""
    plain, led = (drawer.generate(condition_BLC, negative_BLC=negative, making=PLAIN) for negative in (None, -condition_BLC))
    np.testing.assert_array_equal(plain[0].array, led[0].array)
    strong, stronger = (drawer.generate(condition_BLC, making=Making(guidance=g)) for g in (4.0, 7.5))
    np.testing.assert_array_equal(strong[0].array, stronger[0].array)
    assert (strong[0].array != plain[0].array).any()


def test_stopping_names_the_step(drawer: Drawer, condition_BLC: torch.Tensor) -> None:
    told: list[tuple[int, int]] = []
    making = Making(progress=lambda *steps: told.append(steps), cancelled=lambda: len(told) == 3)
    with pytest.raises(CancelledError, match="after step 3 of 16"):
        drawer.generate(condition_BLC, making=making)
    assert told == [(1, 16), (2, 16), (3, 16)]


def test_damaged_weights_name_the_code_and_draw_nothing(drawer: Drawer, condition_BLC: torch.Tensor) -> None:
    told: list[tuple[int, int]] = []

    def spoil(done: int, total: int) -> None:
        told.append((done, total))
        if done == 5:
            drawer.painter.out.weight.data[3, 0] = torch.nan

    with pytest.raises(GenerationError, match="code 6 of 16 has scores that are no numbers"):
        drawer.generate(condition_BLC, making=Making(progress=spoil))
    assert told[-1] == (5, 16)


def test_what_does_not_fit_is_refused(drawer: Drawer, condition_BLC: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="a condition of shape"):
        drawer.generate(condition_BLC[..., 1:])
    with pytest.raises(ConfigError, match="negative condition of shape"):
        drawer.generate(condition_BLC, negative_BLC=condition_BLC[0])
    with pytest.raises(ConfigError, match="3 negative conditions for 2 items"):
        drawer.generate(condition_BLC, negative_BLC=condition_BLC[:1].repeat(3, 1, 1))
    with pytest.raises(ConfigError, match="expected 16 x 16"):
        drawer.generate(condition_BLC, making=replace(PLAIN, size=(64, 64)))
    with pytest.raises(ConfigError, match="length in seconds"):
        drawer.generate(condition_BLC, making=replace(PLAIN, seconds=1.0))
    with pytest.raises(GenerationError, match="not finite"):
        drawer.generate(condition_BLC * torch.nan)
    with pytest.raises(ConfigError, match="3 heads"):
        DrawerConfig.tiny().model_copy(update={"heads": 3}).build()


def test_it_is_read_as_it_was_written(drawer: Drawer, condition_BLC: torch.Tensor, tmp_path: Path) -> None:
    drawer.save(tmp_path / "drawer")
    same = drawer.config.build(tmp_path / "drawer")
    assert DrawerConfig.load(tmp_path / "drawer" / "config.json") == drawer.config
    for made, again in zip(drawer.generate(condition_BLC), same.generate(condition_BLC), strict=True):
        np.testing.assert_array_equal(made.array, again.array)
    (tmp_path / "drawer" / "painter.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no painter\.safetensors beside tokenizer/.*sensorium train nano-draws"):
        drawer.config.build(tmp_path / "drawer")


def test_a_tokenizer_alone_gives_its_codes(drawer: Drawer, tmp_path: Path) -> None:
    """The folder that `sensorium tokenizer train` writes."""
    write_model(tmp_path, drawer.config.tokenizer, drawer.tokenizer)
    torch.manual_seed(7)
    other = drawer.config.build(tmp_path)
    pixels_BCHW = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(other.redraw(pixels_BCHW), drawer.redraw(pixels_BCHW))
    assert not torch.equal(other.painter.out.weight, drawer.painter.out.weight)


def test_codes_are_chosen_as_often_as_they_are_likely() -> None:
    scores_BK = torch.tensor([0.1, 0.5, 0.05, 0.35]).log().expand(1000, -1)
    chance_B = (torch.arange(1000) + 0.5) / 1000
    shares = [float((choose(scores_BK, Strokes(), chance_B) == code).double().mean()) for code in range(4)]
    assert shares == pytest.approx([0.1, 0.5, 0.05, 0.35], abs=2e-3)
    likely = choose(scores_BK, Strokes(top_p=0.84), chance_B)
    assert sorted(set(likely.tolist())) == [1, 3]
    assert float((likely == 1).double().mean()) == pytest.approx(0.5 / 0.85, abs=2e-3)
    assert set(choose(scores_BK, Strokes(temperature=0), chance_B).tolist()) == {1}
    assert set(choose(scores_BK, Strokes(), torch.ones(1000)).tolist()) == {2}

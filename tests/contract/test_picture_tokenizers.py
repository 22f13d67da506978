"""Does every picture tokenizer keep the promises of its kind?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sensorium.core.batch import Grid
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.generators import PICTURE_TOKENIZERS


@pytest.fixture(scope="module", params=list(PICTURE_TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return PICTURE_TOKENIZERS.find(request.param).tiny().build()


def pictures(size_px: int, count: int = 2) -> Tensor:
    return torch.randint(0, 256, (count, 3, size_px, size_px), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", PICTURE_TOKENIZERS)
def test_config_round_trips(name: str) -> None:
    config = PICTURE_TOKENIZERS.find(name).tiny()
    assert config.kind == name
    assert PICTURE_TOKENIZERS.find(name).from_dict(config.to_dict()) == config


@pytest.mark.parametrize("name", PICTURE_TOKENIZERS)
def test_it_builds_at_its_default_size_without_memory(name: str) -> None:
    with torch.device("meta"):
        module = PICTURE_TOKENIZERS.find(name)().blank()
    assert all(p.is_meta for p in cast(nn.Module, module).parameters())


def test_there_and_back(tokenizer: Any) -> None:
    pixels = pictures(tokenizer.size_px)
    ids = tokenizer.encode(pixels)
    assert ids.shape == (2, tokenizer.grid.tokens)
    assert ids.dtype == torch.int64
    assert 0 <= int(ids.min()) <= int(ids.max()) < tokenizer.codes
    back = tokenizer.decode(ids)
    assert back.shape == pixels.shape
    assert back.dtype == torch.uint8
    assert tokenizer.encode(back).shape == ids.shape
    assert torch.equal(tokenizer.encode(pixels), ids)
    assert torch.equal(tokenizer.decode(ids), back)
    assert not ids.requires_grad


def test_a_picture_does_not_depend_on_those_beside_it(tokenizer: Any) -> None:
    pixels = pictures(tokenizer.size_px, 3)
    ids = tokenizer.encode(pixels)
    assert torch.equal(tokenizer.encode(pixels[1:2]), ids[1:2])
    alone = tokenizer.decode(ids[1:2])
    assert (alone.int() - tokenizer.decode(ids)[1:2].int()).abs().max() <= 1


def test_pictures_that_are_not_square(tokenizer: Any) -> None:
    pixels = torch.cat([pictures(tokenizer.size_px)] * 2, dim=3)
    grid = Grid(tokenizer.grid.h, 2 * tokenizer.grid.w)
    if PICTURE_TOKENIZERS.find(tokenizer.kind).tiny().whole:
        with pytest.raises(ConfigError, match=tokenizer.kind):
            tokenizer.encode(pixels)
        with pytest.raises(ConfigError, match=tokenizer.kind):
            tokenizer.decode(torch.zeros(2, grid.tokens, dtype=torch.long), grid)
        return
    ids = tokenizer.encode(pixels)
    assert ids.shape == (2, grid.tokens)
    assert tokenizer.decode(ids, grid).shape == pixels.shape


def test_what_it_cannot_take_is_refused(tokenizer: Any) -> None:
    pixels, ids = pictures(tokenizer.size_px), tokenizer.encode(pictures(tokenizer.size_px))
    for bad in (pixels.float(), pixels[:, :1], pixels[0], pixels[:, :, :-1], pixels[:, :, :0]):
        with pytest.raises(ConfigError, match=tokenizer.kind):
            tokenizer.encode(bad)
    for bad in (ids[:, :-1], ids[0], ids - tokenizer.codes, ids + tokenizer.codes):
        with pytest.raises(ConfigError, match=tokenizer.kind):
            tokenizer.decode(bad)


@pytest.mark.parametrize("name", PICTURE_TOKENIZERS)
def test_saved_and_loaded_it_is_the_same(name: str, tmp_path: Path) -> None:
    config = PICTURE_TOKENIZERS.find(name).tiny()
    torch.manual_seed(0)
    first = cast(Any, config.build())
    save_file(first.state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(1)
    second = config.build(tmp_path)
    pixels = pictures(first.size_px)
    ids = first.encode(pixels)
    assert torch.equal(second.encode(pixels), ids)
    assert torch.equal(second.decode(ids), first.decode(ids))
    state = first.state_dict()
    del state[sorted(state)[0]]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError):
        config.build(tmp_path)


def test_sizes_that_do_not_fit_are_refused() -> None:
    kind = PICTURE_TOKENIZERS.find("vq")
    for changes in ({"size_px": 30}, {"widths": (8, 12)}, {"widths": ()}):
        with pytest.raises(ConfigError, match="vq"):
            kind.from_dict(kind.tiny().to_dict() | changes).build()

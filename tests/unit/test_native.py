"""Pictures at their own size: packed patches, windows, places in three rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from test_model import make

from sensorium.api import Model
from sensorium.core.batch import Example, Grid, MediaShape
from sensorium.core.errors import AlignmentError, ConfigError, DataError
from sensorium.core.sample import Sample, parse_sample
from sensorium.encoders import ENCODERS
from sensorium.encoders.native_vit import NativeVit, NativeVitConfig, to_patches
from sensorium.encoders.vit import VitConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.media.anyres import AnyResolution
from sensorium.media.native import NativeResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.nn.packed_attention import attend_in_groups, whole_pictures, windows
from sensorium.processing.processor import Processor

GRIDS = (Grid(4, 6), Grid(2, 2), Grid(4, 6), Grid(6, 2), Grid(10, 4))
TOWERS = [n for n in ENCODERS if issubclass(ENCODERS.find(n), NativeVitConfig)]


def patches(grids: tuple[Grid, ...]) -> torch.Tensor:
    count = sum(grid.tokens for grid in grids)
    return torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8)


def tower(name: str) -> NativeVit:
    built: NativeVit = ENCODERS.find(name).tiny().build()
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    return built


@pytest.mark.parametrize("name", TOWERS)
@torch.no_grad()
def test_pictures_in_one_row_do_not_see_each_other(name: str) -> None:
    encoder, pixels = tower(name), patches(GRIDS)
    together = encoder(pixels, GRIDS)
    assert together.grids == GRIDS
    start = 0
    for grid, out in zip(GRIDS, together.values_ND.split(together.lengths), strict=True):
        alone = encoder(pixels[start : start + grid.tokens], (grid,)).values_ND
        torch.testing.assert_close(out, alone, atol=1e-5, rtol=1e-4)
        start += grid.tokens


@pytest.mark.parametrize("name", TOWERS)
@torch.no_grad()
def test_whole_pictures_are_their_patches(name: str) -> None:
    encoder = tower(name)
    pictures = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    cut = to_patches(pictures, 8)
    assert torch.equal(cut[1], pictures[0, :, :8, 8:16])
    assert torch.equal(encoder(pictures).values_ND, encoder(cut, (Grid(4, 4),) * 2).values_ND)


@pytest.mark.parametrize("name", TOWERS)
@torch.no_grad()
def test_places_are_in_two_dimensions(name: str) -> None:
    """The same patches in another layout give other features."""
    encoder, pixels = tower(name), patches((Grid(4, 6),))
    wide, tall = (encoder(pixels, (grid,)).values_ND for grid in (Grid(4, 6), Grid(6, 4)))
    assert float((wide - tall).abs().max()) > 1e-3


@pytest.mark.parametrize("name", TOWERS)
@torch.no_grad()
def test_half_precision_is_near(name: str) -> None:
    encoder, pixels = tower(name), patches(GRIDS)
    expected = encoder(pixels, GRIDS).values_ND
    got = encoder.to(torch.bfloat16)(pixels, GRIDS).values_ND
    assert got.dtype == torch.bfloat16
    error = (got.float() - expected).norm() / expected.norm()
    assert 0 < float(error) < 0.05


def test_a_wrong_count_of_patches_is_named() -> None:
    with pytest.raises(AlignmentError, match="24 patches"):
        tower("qwen2_vit")(patches((Grid(4, 6),)), (Grid(4, 4),))


@pytest.mark.parametrize("side", [None, 2, 3, 4])
def test_groups_attend_as_a_mask_over_all_pairs_would(side: int | None) -> None:
    device = torch.device("cpu")
    groups = whole_pictures(GRIDS, device) if side is None else windows(GRIDS, side, device)
    names: list[tuple[int, int, int]] = []
    for number, grid in enumerate(GRIDS):
        names += [(number, row // (side or 99), col // (side or 99))
                  for row in range(grid.h) for col in range(grid.w)]  # fmt: skip
    allowed = torch.tensor([[a == b for b in names] for a in names])
    q, k, v = torch.randn(3, len(names), 2, 4).unbind(0)
    expected_HNE = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(0, 1) for x in (q, k, v)), attn_mask=allowed
    )
    got = attend_in_groups(q, k, v, groups)
    torch.testing.assert_close(got, expected_HNE.transpose(0, 1), atol=1e-5, rtol=1e-5)


def sample(*sizes: tuple[int, int], separate: bool = False) -> Sample:
    rng = np.random.default_rng(1)
    pictures = [Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    content = [{"type": "image", "image": picture} for picture in pictures]
    return parse_sample({"id": "s", "separate_turns": separate, "messages": [
        {"role": "user", "content": [*content, {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": "and?"},
        {"role": "assistant", "content": "a mat"}]})  # fmt: skip


def encoded(model: Model, one: Sample, max_length: int | None = None) -> Example:
    return model.processor.encode(one, max_length=max_length)


def test_places_of_pictures_and_text() -> None:
    model = make("native", "qwen2_vl")
    example = encoded(model, sample((64, 32), (32, 32)))
    slots = example.slots["image"]
    assert [plan.patches for plan in example.media["image"].plans] == [Grid(4, 8), Grid(4, 4)]
    assert len(slots) == 2 * 4 + 2 * 2
    first = slots[0]
    assert example.places[:first] == [(i, i, i) for i in range(first)]
    # 2 x 4 tokens, then the two marks between pictures, four places on.
    assert example.places[first : first + 8] == [
        (first, first + row, first + col) for row in range(2) for col in range(4)
    ]
    assert example.places[first + 8 : first + 10] == [(first + 4 + i,) * 3 for i in range(2)]
    second = first + 6
    assert [p[0] for p in example.places[first + 10 : first + 14]] == [second] * 4
    rest = example.places[first + 14 :]
    assert rest == [(second + 2 + i,) * 3 for i in range(len(rest))]
    assert len(example.places) == len(example)


def test_separate_turns_count_on_from_the_pictures() -> None:
    model = make("native", "qwen2_vl")
    example = encoded(model, sample((64, 32), separate=True))
    shared = example.slots["image"][-1] + 1
    after = example.places[example.slots["image"][0]][0] + 4
    for branch in (1, 2):
        found = [p for p, b in zip(example.places, example.branches, strict=True) if b == branch]
        assert found == [(after + i,) * 3 for i in range(len(found))]
    assert len(example.places) == len(example) > shared


def test_cut_conversations_keep_a_place_for_each_token() -> None:
    model = make("native", "qwen2_vl")
    whole = encoded(model, sample((64, 32)))
    cut = encoded(model, sample((64, 32)), max_length=len(whole) - 3)
    assert cut.places == whole.places[: len(cut)]
    assert len(cut) == len(whole) - 3


def test_other_models_have_one_position() -> None:
    assert encoded(make("native", "llama"), sample((64, 32))).places == []


def test_tiles_have_no_places_on_a_map() -> None:
    config = make("native", "qwen2_vl").network.config
    encoder = VitConfig.tiny().model_copy(update={"feature": "patch"})
    lane = LaneConfig(encoder=encoder, projector=MlpConfig(), resolution=AnyResolution.tiny())
    tiled = ModelConfig(lanes={"image": lane}, backbone=config.backbone)
    processor = Processor(tiled, make("native").tokenizer)
    with pytest.raises(ConfigError, match="not one map"):
        processor.encode(sample((300, 90)))


def test_patches_and_encoder_must_fit() -> None:
    for encoder in (VitConfig.tiny(), ENCODERS.find("qwen2_vit").tiny()):
        with pytest.raises(ConfigError, match="patches of 14 px"):
            LaneConfig.from_dict(
                {"encoder": encoder.to_dict(), "projector": {"kind": "mlp"}, "resolution": {"kind": "native"}}
            )


def test_a_class_token_has_no_window() -> None:
    config = ENCODERS.find("rice_vit").tiny().model_copy(update={"window_px": 16})
    with pytest.raises(ConfigError, match="class token with windows"):
        config.build()


def test_pixel_limits_must_leave_room() -> None:
    with pytest.raises(ConfigError, match="max_pixels"):
        NativeResolution.from_dict({"max_pixels": 500})


def test_strips_are_refused_as_rows() -> None:
    with pytest.raises(DataError, match="200 times"):
        NativeResolution().size(MediaShape(1, 201))

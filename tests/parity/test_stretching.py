"""Positions of towers on pictures of another size: equal to transformers where its class stretches them, else
to torch's bicubic, while they run and when weights are taken from a model of another size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sensorium.core.parts import EncoderConfig
from sensorium.encoders.blip2_vit import Blip2VitConfig
from sensorium.encoders.clip import ClipConfig
from sensorium.encoders.eva2 import Eva2Config
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.interop.start import start_from
from sensorium.model.multimodal import MultimodalModel
from sensorium.model.picture_size import pictures_of
from sensorium.nn.positions import refitted
from sensorium.recipes import RECIPES

CONFIGS: dict[str, Any] = {
    "clip": ClipConfig.tiny(),
    "clip-pooled": ClipConfig.tiny().model_copy(update={"feature": "pooled", "select_layer": None}),
    "blip2_vit": Blip2VitConfig.tiny(),
    "eva2": Eva2Config.tiny(),
    "eva2-l": Eva2Config.large(32, width=16, layers=2, heads=2, mlp_width=24, patch_size_px=8, rotary_side=2,
                               positions_behind=True),
}  # fmt: skip


def model_of(encoder: EncoderConfig) -> MultimodalModel:
    config = RECIPES.find("tiny")().model
    lane = config.lanes["image"].model_copy(update={"encoder": encoder})
    return MultimodalModel(config.model_copy(update={"lanes": {"image": lane}})).eval()


def tables(encoder: Any) -> dict[str, torch.Tensor]:
    return {n: p for n, p in encoder.named_parameters() if "position_embedding" in n or n.endswith(("positions_LD", "behind_LD"))}


def randomise(encoder: Any) -> None:
    """Tables that begin at zero would hide everything."""
    with torch.no_grad():
        for table in tables(encoder).values():
            table.normal_()


def bicubic(table: torch.Tensor, side: int) -> torch.Tensor:
    """As the authors' code of BLIP-2, MiniGPT-v2 and EVA has it; CLS, if any, in front."""
    flat = table.reshape(-1, table.shape[-1])
    front = 0 if round(len(flat) ** 0.5) ** 2 == len(flat) else 1
    old = round((len(flat) - front) ** 0.5)
    picture = flat[front:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    wide = F.interpolate(picture, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([flat[:front], wide.permute(0, 2, 3, 1).flatten(0, 2)]).reshape(*table.shape[:-2], -1, table.shape[-1])


@pytest.mark.parametrize("size_px", [16, 48])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_stage_at_another_size_sees_stretched_positions(name: str, size_px: int) -> None:
    """Equal to a tower built for that size, whose table is the stretched one."""
    config = CONFIGS[name]
    model = model_of(config)
    encoder: Any = model.encoders["image"]
    randomise(encoder)
    native: Any = config.at_size(size_px).build().eval()
    state = encoder.state_dict()
    for key in tables(encoder):
        state[key] = bicubic(state[key], size_px // 8)
        fitted = refitted(encoder.state_dict()[key], state[key].shape[-2])
        assert fitted is not None
        torch.testing.assert_close(fitted, state[key])
    native.load_state_dict(state)
    pixels = torch.randint(0, 255, (2, 3, size_px, size_px), dtype=torch.uint8)
    with pictures_of(model, size_px):
        got = encoder(pixels)
    expected = native(pixels)
    assert got.grids == expected.grids
    torch.testing.assert_close(got.values_ND, expected.values_ND, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["clip", "blip2_vit"])
def test_the_stretched_table_is_transformers(name: str) -> None:
    tower: Any = CONFIGS[name].build().eval()
    randomise(tower)
    embeddings: Any = getattr(tower.tower, "vision_model", tower.tower).embeddings
    ((_, table),) = tables(tower).items()
    patches = torch.zeros(1, 1 + 36, table.shape[-1])
    expected = embeddings.interpolate_pos_encoding(patches, 48, 48)
    fitted = refitted(table, 37)
    assert fitted is not None
    torch.testing.assert_close(fitted.reshape(1, 37, -1), expected.reshape(1, 37, -1), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_start_at_another_size_stretches_positions(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    small = model_of(config)
    randomise(small.encoders["image"])
    _, tokenizer = build_pretrained(RECIPES.find("tiny")().model)
    save_model(small, tokenizer, tmp_path / "small", {n for n, _ in small.named_parameters()})
    large = model_of(config.at_size(48))
    started = start_from(large, tmp_path / "small")
    assert started.new == []
    mine, theirs = large.state_dict(), small.state_dict()
    wanted = {f"encoders.image.{key}" for key in tables(small.encoders["image"])}
    assert set(started.stretched) == wanted
    for key, value in mine.items():
        torch.testing.assert_close(value, bicubic(theirs[key], 6) if key in wanted else theirs[key])


def test_a_table_that_is_no_square_is_left_alone() -> None:
    assert refitted(torch.zeros(11, 4), 17) is None
    assert refitted(torch.zeros(17, 4), 11) is None

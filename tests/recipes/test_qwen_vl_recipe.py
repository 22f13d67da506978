"""Qwen-VL: the figures that its paper prints, and stages that change the pictures' size."""

from __future__ import annotations

import pytest
import torch
from part_sizes import qwen_7b, qwen_pool, qwen_post, qwen_tower

from sensorium.core.errors import ConfigError
from sensorium.model.multimodal import MultimodalModel
from sensorium.model.picture_size import at_size, pictures_of
from sensorium.recipes import RECIPES, TINY_FORMS


def test_published_sizes() -> None:
    """Table 1 of the paper: 1.9B, 0.08B, 7.7B, and 9.6B in all, whose next digit it cut off. The norm and
    the map behind the adapter are counted with the tower."""
    assert round((qwen_tower() + qwen_post()) / 1e9, 1) == 1.9
    assert round(qwen_pool() / 1e9, 2) == 0.08
    assert round(qwen_7b() / 1e9, 1) == 7.7
    whole = qwen_tower() + qwen_pool() + qwen_post() + qwen_7b()
    assert whole // 10**8 / 10 == 9.6


def test_sizes_of_pictures() -> None:
    """Both sizes give the LLM 256 tokens; only the tower sees more patches."""
    model = RECIPES.find("qwen-vl")().model
    patches = {px: at_size(model, px).lane("image").encoder.grid().tokens for px in (224, 448)}
    assert patches == {224: 256, 448: 1024}
    assert all(at_size(model, px).lane("image").tile_grid().tokens == 256 for px in patches)


def test_a_stage_has_its_own_size_and_the_model_keeps_its_own() -> None:
    recipe = TINY_FORMS.find("qwen-vl")()
    assert [stage.picture_px for stage in recipe.stages] == [16, None, None]
    model = MultimodalModel(recipe.model)
    small = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    with pictures_of(model, 16):
        assert len(model.encoders["image"](small).values_ND) == 4
    assert model.config == recipe.model
    assert model.encoders["image"].config == recipe.model.lane("image").encoder


def test_other_towers_take_one_size() -> None:
    with pytest.raises(ConfigError, match="224 pixels for encoder 'siglip'"):
        at_size(RECIPES.find("llava-onevision")().model, 224)

"""The tower of LLaVA-OneVision-1.5 against MLCD's in transformers, which computes the same function:
class token with a learned place, rotary places of patches, norm in front."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from native_models import rice_names

from sensorium.core.batch import Grid
from sensorium.encoders.native_vit import NativeVit, to_patches
from sensorium.encoders.rice_vit import RiceVitConfig


@pytest.fixture(scope="module")
def pair() -> tuple[Any, NativeVit]:
    from transformers import MLCDVisionConfig, MLCDVisionModel

    torch.manual_seed(0)
    theirs = MLCDVisionModel(MLCDVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        image_size=32, patch_size=8,
    )).eval()  # fmt: skip
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.ndim > 1 or "bias" in name:
                parameter.normal_(0, 0.2)
    ours = RiceVitConfig.tiny().build()
    ours.load_state_dict(rice_names(theirs.state_dict()), strict=True)
    return theirs, ours


@torch.no_grad()
def test_features_of_pictures_of_several_sizes(pair: tuple[Any, NativeVit]) -> None:
    """All in one row; the reference sees each alone."""
    theirs, ours = pair
    sizes = [(32, 32), (16, 64), (48, 24), (8, 8), (32, 32)]
    pictures = [torch.randint(0, 256, (1, 3, h, w), dtype=torch.uint8) for h, w in sizes]
    grids = tuple(Grid(h // 8, w // 8) for h, w in sizes)
    features = ours(torch.cat([to_patches(p, 8) for p in pictures]), grids)
    assert features.grids == grids
    for picture, out in zip(pictures, features.values_ND.split(features.lengths), strict=True):
        expected = theirs(ours.normalise(picture)).last_hidden_state[0, 1:]
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)

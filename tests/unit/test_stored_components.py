"""A pipeline of diffusers whose weights lie in eight bits draws as the one that was stored."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sensorium.core.errors import WeightsError
from sensorium.core.hands import Making
from sensorium.generators.diffusion import DiffusionConfig
from sensorium.generators.small_diffusion import SmallDiffusionConfig
from sensorium.generators.stable_diffusion import StableDiffusionConfig
from sensorium.interop.made_weights import GENERATORS, copy_generators
from sensorium.nn.stored_numbers import SCALES

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
WIDE = SmallDiffusionConfig(length=2, width=32, vae_widths=(32, 32, 32), unet_widths=(32, 32))
CONFIGS = {"with a text encoder": StableDiffusionConfig.tiny(), "of our own": WIDE}


def in_eight_bits(config: DiffusionConfig, folder: Path) -> tuple[Any, Path]:
    """A random pipeline, and the folder of its copy."""
    torch.manual_seed(0)
    made: Any = config.build()
    made.save(folder / "whole" / GENERATORS / "image")
    copy_generators(folder / "whole", folder / "small", "q8_0")
    return made, folder / "small" / GENERATORS / "image"


@pytest.mark.parametrize("name", CONFIGS)
def test_every_component_gets_its_numbers_back(name: str, tmp_path: Path) -> None:
    made, folder = in_eight_bits(CONFIGS[name], tmp_path)
    again: Any = CONFIGS[name].build(folder)
    parts = [key for key, part in made.pipe.components.items() if isinstance(part, torch.nn.Module)]
    assert {"vae", "unet"} <= set(parts)
    stored = {part for part in parts for file in (folder / part).glob("*.safetensors") if any(key.endswith(SCALES) for key in load_file(file))}
    assert stored == ({"text_encoder", "unet"} if name == "with a text encoder" else {"vae", "unet"})
    for part in parts:
        theirs, ours = getattr(made.pipe, part).state_dict(), getattr(again.pipe, part).state_dict()
        assert set(theirs) == set(ours)
        for key, value in theirs.items():
            assert ours[key].dtype == value.dtype
            torch.testing.assert_close(ours[key], value, atol=float(value.abs().max()) / 200, rtol=2e-3)
    condition_BLC = torch.randn(1, CONFIGS[name].length, CONFIGS[name].width)
    pictures = [g.generate(condition_BLC, making=Making(steps=3, guidance=1.0))[0].array.astype(int) for g in (made, again)]
    assert np.abs(pictures[0] - pictures[1]).mean() < 3


def test_a_damaged_file_beside_is_named(tmp_path: Path) -> None:
    _, folder = in_eight_bits(WIDE, tmp_path)
    (folder / "unet" / "other.safetensors").write_bytes(b"version https://git-lfs")
    with pytest.raises(WeightsError, match=r"unet/other.safetensors: damaged weights file: .*or remove it"):
        WIDE.build(folder)


def test_scales_of_what_is_no_tensor_of_the_component_are_refused(tmp_path: Path) -> None:
    _, folder = in_eight_bits(WIDE, tmp_path)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    one = next(key for key in tensors if key.endswith(SCALES))
    tensors["other.weight"], tensors["other.weight" + SCALES] = tensors[one.removesuffix(SCALES)].clone(), tensors[one].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 tensors that are none of UNet2DConditionModel's \(other.weight\)"):
        WIDE.build(folder)

"""Qwen2-VL's vision transformer (arXiv:2409.12191): 675 million parameters, which all sizes of
the system share. It came from a DFN tower whose learned positions gave way to rotary ones."""

from __future__ import annotations

from typing import Literal

from sensorium.encoders.native_vit import NativeVitConfig
from sensorium.encoders.tower import OPENAI_MEAN, OPENAI_STD, tiny_shape
from sensorium.nn.activations import ActivationName


class Qwen2VitConfig(NativeVitConfig):
    """Defaults are the published tower."""

    kind: Literal["qwen2_vit"] = "qwen2_vit"
    width: int = 1280
    layers: int = 32
    heads: int = 16
    mlp_width: int = 5120
    activation: ActivationName = "quick_gelu"
    image_size_px: int = 448
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    @classmethod
    def tiny(cls) -> Qwen2VitConfig:
        return cls(**tiny_shape())

"""Qwen2.5-VL's vision transformer (arXiv:2502.13923): windows of 112 pixels in all layers but four,
RMSNorm and SwiGLU as in language models."""

from __future__ import annotations

from typing import Literal

from sensorium.encoders.native_vit import NativeVitConfig
from sensorium.encoders.tower import OPENAI_MEAN, OPENAI_STD, tiny_shape
from sensorium.nn.activations import ActivationName
from sensorium.nn.norms import NormName


class Qwen25VitConfig(NativeVitConfig):
    """Defaults are the published tower."""

    kind: Literal["qwen2_5_vit"] = "qwen2_5_vit"
    width: int = 1280
    layers: int = 32
    heads: int = 16
    mlp_width: int = 3420
    activation: ActivationName = "silu"
    gated: bool = True
    norm: NormName = "rms"
    window_px: int | None = 112
    whole_layers: tuple[int, ...] = (7, 15, 23, 31)
    image_size_px: int = 448
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    @classmethod
    def tiny(cls) -> Qwen25VitConfig:
        return cls(**tiny_shape(window_px=16, whole_layers=(1,)))

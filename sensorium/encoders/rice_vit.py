"""RICE-ViT (arXiv:2507.20025) as LLaVA-OneVision-1.5 (arXiv:2509.23661) reads it: patches of
pictures of any size with rotary places, a class token, no norm behind the last layer."""

from __future__ import annotations

from typing import Literal

from sensorium.encoders.native_vit import NativeVitConfig
from sensorium.encoders.tower import OPENAI_MEAN, OPENAI_STD, tiny_shape
from sensorium.nn.activations import ActivationName


class RiceVitConfig(NativeVitConfig):
    """Defaults are rice-vit-large-patch14-560."""

    kind: Literal["rice_vit"] = "rice_vit"
    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_width: int = 4096
    activation: ActivationName = "gelu"
    norm_eps: float = 1e-5
    frames: int = 1
    class_token: bool = True
    norm_in: bool = True
    image_size_px: int = 560
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    @classmethod
    def tiny(cls) -> RiceVitConfig:
        return cls(**tiny_shape())

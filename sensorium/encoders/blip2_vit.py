"""BLIP-2's EVA-CLIP-g tower (arXiv:2301.12597), through transformers' `Blip2VisionModel`.

39 of EVA's 40 blocks, CLS kept, then the separate final norm (`ln_vision`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from sensorium.encoders.tower import (
    OPENAI_MEAN,
    OPENAI_STD,
    FeatureChoice,
    TowerConfig,
    run_stretched,
    tiny_shape,
)
from sensorium.nn.pretrained import from_config


class Blip2VitConfig(TowerConfig):
    """Defaults are EVA-CLIP-g at 224 pixels: 257 tokens of width 1408."""

    kind: Literal["blip2_vit"] = "blip2_vit"
    width: int = 1408
    layers: int = 39
    heads: int = 16
    mlp_width: int = 6144
    image_size_px: int = 224
    patch_size_px: int = 14
    feature: FeatureChoice = "cls_patch"
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    @classmethod
    def tiny(cls) -> Blip2VitConfig:
        return cls(**tiny_shape())

    def at_size(self, size_px: int) -> Blip2VitConfig:
        return self.model_copy(update={"image_size_px": size_px})

    def run_tower(self, tower: Any, pixel_values_NCHW: Tensor) -> Any:
        return run_stretched(tower, pixel_values_NCHW)

    def build_tower(self, folder: Path | None) -> nn.Module:
        from transformers import Blip2VisionConfig, Blip2VisionModel

        return from_config(
            Blip2VisionModel,
            Blip2VisionConfig(
                **self.hf_shape(),
                # The class default of 1e-10 makes every random picture look the same.
                initializer_range=0.02,
            ),
            folder,
        )

    def blocks(self, tower: Any) -> list[nn.Module]:
        return list(tower.encoder.layers)

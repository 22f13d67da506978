"""BLIP's vision transformer (arXiv:2201.12086), through transformers' `BlipVisionModel`: CLS kept, all
tokens normed.

Shape legend: L patches, H and W of them in a column and a row, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import nn

from sensorium.encoders.tower import OPENAI_MEAN, OPENAI_STD, FeatureChoice, TowerConfig, tiny_shape
from sensorium.nn.pretrained import load_part


class BlipVitConfig(TowerConfig):
    """Defaults are ViT-B/16 at 384 pixels: 577 tokens of width 768."""

    kind: Literal["blip_vit"] = "blip_vit"
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    image_size_px: int = 384
    patch_size_px: int = 16
    feature: FeatureChoice = "cls_patch"
    norm_eps: float = 1e-5
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    @classmethod
    def tiny(cls) -> BlipVitConfig:
        return cls(**tiny_shape())

    def build_tower(self, folder: Path | None) -> nn.Module:
        from transformers import BlipVisionConfig, BlipVisionModel

        tower = BlipVisionModel(
            BlipVisionConfig(
                **self.hf_shape(),
                layer_norm_eps=self.norm_eps,
                # The class default of 1e-10 makes every random picture look the same.
                initializer_range=0.02,
            )
        )
        if folder is not None:
            load_part(tower, folder, "vision_model.")
        return tower

    def blocks(self, tower: Any) -> list[nn.Module]:
        return list(tower.encoder.layers)

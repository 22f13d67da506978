"""The plain vision transformer (arXiv:2010.11929), through transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import nn

from sensorium.encoders.tower import HALF, TowerConfig, tiny_shape
from sensorium.nn.pretrained import from_config


class VitConfig(TowerConfig):
    """Defaults are ViT-B/16 at 224 pixels; `pooled` is the tanh-dense CLS token."""

    kind: Literal["vit"] = "vit"
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    image_size_px: int = 224
    patch_size_px: int = 16
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF

    @classmethod
    def tiny(cls) -> VitConfig:
        return cls(**tiny_shape(feature="cls_patch"))

    def build_tower(self, folder: Path | None) -> nn.Module:
        from transformers import ViTConfig, ViTModel

        return from_config(
            ViTModel,
            ViTConfig(
                **self.hf_shape(),
            ),
            folder,
            beside=("classifier", "pooler"),
            add_pooling_layer=self.feature == "pooled",
        )

    def blocks(self, tower: Any) -> list[nn.Module]:
        if hasattr(tower, "layers"):
            return list(tower.layers)
        return list(tower.encoder.layer)

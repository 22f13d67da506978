"""DINOv2's vision tower (arXiv:2304.07193), through transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import nn

from sensorium.core.errors import ConfigError
from sensorium.encoders.tower import IMAGENET_MEAN, IMAGENET_STD, TowerConfig, tiny_shape
from sensorium.nn.pretrained import from_config


class Dinov2Config(TowerConfig):
    """Defaults are ViT-L/14; `pooled` is the normalised CLS token."""

    kind: Literal["dinov2"] = "dinov2"
    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_width: int = 4096
    image_size_px: int = 518
    patch_size_px: int = 14
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @classmethod
    def tiny(cls) -> Dinov2Config:
        return cls(**tiny_shape(mlp_width=64))

    def check(self) -> None:
        super().check()
        if self.mlp_width % self.width:
            raise ConfigError(
                f"mlp_width {self.mlp_width} for width {self.width}",
                expected="a whole multiple of the width in DINOv2",
            )

    def build_tower(self, folder: Path | None) -> nn.Module:
        from transformers import Dinov2Config as HfConfig
        from transformers import Dinov2Model

        return from_config(
            Dinov2Model,
            HfConfig(
                hidden_size=self.width,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                mlp_ratio=self.mlp_width // self.width,
                image_size=self.image_size_px,
                patch_size=self.patch_size_px,
            ),
            folder,
            beside=("classifier",),
        )

    def blocks(self, tower: Any) -> list[nn.Module]:
        encoder = tower.encoder
        return list(encoder.layer if hasattr(encoder, "layer") else encoder.layers)

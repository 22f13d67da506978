"""CLIP's vision tower (Radford et al., arXiv:2103.00020), through transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import nn

from sensorium.encoders.tower import OPENAI_MEAN, OPENAI_STD, TowerConfig, tiny_shape
from sensorium.nn.pretrained import from_config


class ClipConfig(TowerConfig):
    """Defaults are ViT-L/14 at 336 pixels."""

    kind: Literal["clip"] = "clip"
    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_width: int = 4096
    image_size_px: int = 336
    patch_size_px: int = 14
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    @classmethod
    def tiny(cls) -> ClipConfig:
        return cls(**tiny_shape(select_layer=-2))

    def build_tower(self, folder: Path | None) -> nn.Module:
        from transformers import CLIPVisionConfig, CLIPVisionModel

        return from_config(
            CLIPVisionModel,
            CLIPVisionConfig(
                **self.hf_shape(),
                hidden_act=self.activation,
            ),
            folder,
            beside=("text_model", "text_projection", "visual_projection", "logit_scale"),
        )

    def blocks(self, tower: Any) -> list[nn.Module]:
        return list(getattr(tower, "vision_model", tower).encoder.layers)

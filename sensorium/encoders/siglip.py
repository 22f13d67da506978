"""SigLIP and SigLIP 2 (fixed resolution) vision towers, through transformers.

Sources: arXiv:2303.15343, arXiv:2502.14786. No CLS token; `pooled` is the attention-pool
head. SigLIP 2's fixed-resolution checkpoints have SigLIP's own layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import nn

from sensorium.core.errors import ConfigError
from sensorium.encoders.tower import HALF, TowerConfig, tiny_shape
from sensorium.nn.pretrained import from_config


class SiglipConfig(TowerConfig):
    """Defaults are SO400M/14 at 384 pixels."""

    kind: Literal["siglip"] = "siglip"
    width: int = 1152
    layers: int = 27
    heads: int = 16
    mlp_width: int = 4304
    image_size_px: int = 384
    patch_size_px: int = 14
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    activation: Literal["gelu_pytorch_tanh", "gelu"] = "gelu_pytorch_tanh"
    """Janus' tower has the exact one."""
    pooling_head: bool = True
    """Whether the tower has the attention-pool head, which `pooled` reads. LLaVA-OneVision's
    towers come without."""

    @classmethod
    def tiny(cls) -> SiglipConfig:
        return cls(**tiny_shape())

    @property
    def prefix_tokens(self) -> int:
        return 0

    def check(self) -> None:
        if self.feature == "pooled" and not self.pooling_head:
            raise ConfigError(
                "pooled features of a SigLIP tower without its head", expected="pooling_head: true"
            )
        super().check()

    def build_tower(self, folder: Path | None) -> nn.Module:
        from transformers import SiglipVisionConfig, SiglipVisionModel

        return from_config(
            SiglipVisionModel,
            SiglipVisionConfig(
                **self.hf_shape(),
                vision_use_head=self.pooling_head,
                hidden_act=self.activation,
            ),
            folder,
            beside=(
                "text_model",
                "logit_scale",
                "logit_bias",
                # LLaVA-OneVision reads what enters the last of SigLIP's blocks, and has neither
                # that block nor the head.
                *(() if self.pooling_head else ("head", str(self.layers))),
            ),
        )

    def blocks(self, tower: Any) -> list[nn.Module]:
        return list(getattr(tower, "vision_model", tower).encoder.layers)

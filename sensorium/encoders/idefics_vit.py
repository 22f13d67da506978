"""IDEFICS' CLIP-H tower, through transformers (no final norm on the patch features)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from sensorium.encoders.tower import OPENAI_MEAN, OPENAI_STD, FeatureChoice, TowerConfig, tiny_shape
from sensorium.nn.pretrained import HARMLESS, load_exact, read_folder


class IdeficsVitConfig(TowerConfig):
    """Defaults are the ViT-H/14 of IDEFICS-9B at 224 pixels."""

    kind: Literal["idefics_vit"] = "idefics_vit"
    width: int = 1280
    layers: int = 32
    heads: int = 16
    mlp_width: int = 5120
    image_size_px: int = 224
    patch_size_px: int = 14
    activation: str = "gelu"
    feature: FeatureChoice = "cls_patch"
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    @classmethod
    def tiny(cls) -> IdeficsVitConfig:
        return cls(**tiny_shape())

    def build_tower(self, folder: Path | None) -> nn.Module:
        from transformers.models.idefics.configuration_idefics import IdeficsVisionConfig
        from transformers.models.idefics.vision import IdeficsVisionTransformer

        config = IdeficsVisionConfig(
            embed_dim=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.mlp_width,
            image_size=self.image_size_px,
            patch_size=self.patch_size_px,
            hidden_act=self.activation,
        )
        # IdeficsModel sets this on its tower, which is not a PreTrainedModel of its own.
        config._attn_implementation = "sdpa"
        tower = IdeficsVisionTransformer(config)
        if folder is not None:
            load_exact(tower, _tensors(folder), where=str(folder))
        return tower

    def blocks(self, tower: Any) -> list[nn.Module]:
        return list(tower.encoder.layers)


def _tensors(folder: Path) -> dict[str, Tensor]:
    """The tower's own tensors, or those of the tower in a whole CLIP, where IDEFICS' comes from."""
    tensors, inside = read_folder(folder), "vision_model."
    tower = {k.removeprefix(inside): v for k, v in tensors.items() if k.startswith(inside)}
    return {k: v for k, v in (tower or tensors).items() if not k.endswith(HARMLESS)}

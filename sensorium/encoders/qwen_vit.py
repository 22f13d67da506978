"""Qwen-VL's vision tower (arXiv:2308.12966): OpenCLIP's ViT-bigG/14 without its CLS token.

Source: `visual.py` beside the weights (huggingface.co/Qwen/Qwen-VL-Chat). Blocks are CLIP's. Positions are a
square table of the size the tower was first trained at, stretched to the picture's patches when it runs; what
leaves the last block has had no norm.

Shape legend: N pictures, L patches of a picture, P entries of the table, D width.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sensorium.encoders.tower import OPENAI_MEAN, OPENAI_STD, TowerConfig, tiny_shape
from sensorium.nn.positions import stretched
from sensorium.nn.pretrained import load_exact, read_folder

# What a checkpoint of CLIP in transformers' layout holds beside these blocks.
BESIDE = ("text_model.", "text_projection.", "visual_projection.", "logit_scale", "post_layernorm.")


class QwenVitConfig(TowerConfig):
    """Defaults are Qwen-VL's: bigG/14 at 448 pixels, 1,024 patches of width 1664."""

    kind: Literal["qwen_vit"] = "qwen_vit"
    width: int = 1664
    layers: int = 48
    heads: int = 16
    mlp_width: int = 8192
    image_size_px: int = 448
    patch_size_px: int = 14
    position_side: int = 16
    """Of the table of positions: 16 for a tower that began at 224 pixels."""
    norm_eps: float = 1e-6
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    @property
    def prefix_tokens(self) -> int:
        return 0

    @property
    def has_pooled(self) -> bool:
        return False

    @classmethod
    def tiny(cls) -> QwenVitConfig:
        return cls(**tiny_shape(position_side=3))

    def at_size(self, size_px: int) -> QwenVitConfig:
        return self.model_copy(update={"image_size_px": size_px})

    def build_tower(self, folder: Path | None) -> nn.Module:
        tower = QwenVit(self)
        if folder is not None:
            load_exact(tower, _tensors(folder), where=str(folder))
        return tower

    def blocks(self, tower: Any) -> list[nn.Module]:
        return list(tower.encoder.layers)


class QwenVit(nn.Module):
    """Patches, positions, a norm, CLIP's blocks; names are those of CLIP in transformers."""

    def __init__(self, config: QwenVitConfig) -> None:
        super().__init__()
        from transformers import CLIPVisionConfig
        from transformers.models.clip.modeling_clip import CLIPEncoder

        arch: Any = CLIPVisionConfig(**config.hf_shape(), hidden_act="gelu", layer_norm_eps=config.norm_eps)
        arch._attn_implementation = "sdpa"
        patch, width = config.patch_size_px, config.width
        self.patches = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.positions_PD = nn.Parameter(torch.randn(config.position_side**2, width) * width**-0.5)
        self.pre_layrnorm = nn.LayerNorm(width, eps=config.norm_eps)
        self.encoder = CLIPEncoder(arch)

    def forward(self, pixel_values_NCHW: Tensor) -> SimpleNamespace:
        map_NDHW = self.patches(pixel_values_NCHW)
        side_h, side_w = map_NDHW.shape[2:]
        hidden_NLD = map_NDHW.flatten(2).transpose(1, 2) + stretched(self.positions_PD, side_h, side_w)
        return self.encoder(self.pre_layrnorm(hidden_NLD))


def _tensors(folder: Path) -> dict[str, Tensor]:
    """This tower's tensors from its own layout, or from CLIP's in transformers, whose first position
    is the CLS token's."""
    found = read_folder(folder)
    kept = {k.removeprefix("vision_model."): v for k, v in found.items() if not k.startswith(BESIDE)}
    tensors: dict[str, Tensor] = {}
    for name, value in kept.items():
        if name.startswith("post_layernorm.") or name in ("embeddings.class_embedding", "embeddings.position_ids"):
            continue
        if name == "embeddings.position_embedding.weight":
            name, value = "positions_PD", value[1:]
        tensors[name.replace("embeddings.patch_embedding.", "patches.")] = value
    return tensors

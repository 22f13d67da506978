"""ViT-22B (Dehghani et al., arXiv:2302.05442) as PaLI-X reads it (arXiv:2305.18565): patch tokens.

No weights were published. Of each block, attention and feed-forward layer read the same normed tokens and are
added together; queries and keys are normed; norms have no bias and no centring, queries, keys and
values no bias. Positions are a square table, stretched to the picture's patches.

Shape legend: N pictures, L patches of a picture, P entries of the table, D width, H heads, E width of a head.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.encoders.tower import HALF, TowerConfig, tiny_shape
from sensorium.nn.positions import stretched
from sensorium.nn.pretrained import load_folder

EPS = 1e-6


class Vit22bConfig(TowerConfig):
    """Defaults are the published sizes, at 224 pixels."""

    kind: Literal["vit_22b"] = "vit_22b"
    width: int = 6144
    layers: int = 48
    heads: int = 48
    mlp_width: int = 24576
    image_size_px: int = 224
    patch_size_px: int = 14
    position_side: int = 16
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF

    @property
    def prefix_tokens(self) -> int:
        return 0

    @property
    def has_pooled(self) -> bool:
        return False

    @classmethod
    def tiny(cls) -> Vit22bConfig:
        return cls(**tiny_shape(position_side=3))

    def at_size(self, size_px: int) -> Vit22bConfig:
        return self.model_copy(update={"image_size_px": size_px})

    def build_tower(self, folder: Path | None) -> nn.Module:
        tower = Vit22b(self)
        if folder is not None:
            load_folder(tower, folder)
        return tower

    def blocks(self, tower: Any) -> list[nn.Module]:
        return list(tower.layers)


class Vit22b(nn.Module):
    """Patches and positions, parallel blocks, a last norm."""

    def __init__(self, config: Vit22bConfig) -> None:
        super().__init__()
        patch, width = config.patch_size_px, config.width
        self.patches = nn.Conv2d(3, width, kernel_size=patch, stride=patch)
        self.positions_PD = nn.Parameter(torch.randn(config.position_side**2, width) * 0.02)
        self.layers = nn.ModuleList(ParallelBlock(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(width, eps=EPS)

    def forward(self, pixel_values_NCHW: Tensor) -> SimpleNamespace:
        map_NDHW = self.patches(pixel_values_NCHW)
        side_h, side_w = map_NDHW.shape[2:]
        hidden_NLD = map_NDHW.flatten(2).transpose(1, 2) + stretched(self.positions_PD, side_h, side_w)
        for layer in self.layers:
            hidden_NLD = layer(hidden_NLD)
        return SimpleNamespace(last_hidden_state=self.norm(hidden_NLD))


class ParallelBlock(nn.Module):
    """x + attention(norm x) + feed-forward(norm x)."""

    def __init__(self, config: Vit22bConfig) -> None:
        super().__init__()
        width, head = config.width, config.width // config.heads
        self.heads = config.heads
        self.norm = nn.RMSNorm(width, eps=EPS)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.norm_q = nn.RMSNorm(head, eps=EPS)
        self.norm_k = nn.RMSNorm(head, eps=EPS)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, width)

    def forward(self, x_NLD: Tensor) -> Tensor:
        normed_NLD = self.norm(x_NLD)
        q_NHLE, k_NHLE, v_NHLE = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(normed_NLD).chunk(3, -1)
        )
        mixed_NHLE = F.scaled_dot_product_attention(self.norm_q(q_NHLE), self.norm_k(k_NHLE), v_NHLE)
        fed_NLD = self.down(F.gelu(self.up(normed_NLD)))
        return x_NLD + self.out(mixed_NHLE.transpose(1, 2).flatten(2)) + fed_NLD

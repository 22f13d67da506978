"""The perceiver resampler (Flamingo, arXiv:2204.14198; IDEFICS' variant by options).

A few learned latents attend to the features and themselves; any number of features
becomes `latents` tokens.

Shape legend: M items, L features, Q latents, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sensorium.core.batch import Features, Grid
from sensorium.core.parts import InputProjectorConfig
from sensorium.nn.activations import ActivationName, activation
from sensorium.nn.attention import Attention
from sensorium.nn.ragged import map_items


class PerceiverConfig(InputProjectorConfig):
    """z = z + Attn(LN z, [LN x; LN z]); z = z + FF(z); final norm."""

    kind: Literal["perceiver"] = "perceiver"
    latents: int = 64
    depth: int = 6
    heads: int = 8
    head_dim: int = 64
    mlp_ratio: int = 4
    activation: ActivationName = "gelu"
    norm_heads: bool = False
    project: bool = True
    """A last linear map to the LLM's width. Without it the tokens keep the encoder's width,
    as gated cross-attention expects."""

    @classmethod
    def tiny(cls) -> PerceiverConfig:
        return cls(latents=4, depth=2, heads=2, head_dim=8, mlp_ratio=2)

    def out_grid(self, grid: Grid) -> Grid:
        return Grid(1, self.latents)

    def build(self, d_in: int, d_out: int) -> Perceiver:
        return Perceiver(self, d_in, d_out)


class Perceiver(nn.Module):
    """Features (any number, d_in) -> (latents, d_out)."""

    def __init__(self, config: PerceiverConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        self.latents_QD = nn.Parameter(torch.randn(config.latents, d_in) * d_in**-0.5)
        self.blocks = nn.ModuleList(PerceiverBlock(config, d_in) for _ in range(config.depth))
        self.norm = nn.LayerNorm(d_in)
        self.out = nn.Linear(d_in, d_out) if config.project else nn.Identity()

    def forward(self, features: Features) -> Features:
        return map_items(features, self._project, self.config.out_grid)

    def _project(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        z_MQD = self.latents_QD.expand(len(items_MLD), -1, -1)
        for block in self.blocks:
            z_MQD = block(z_MQD, items_MLD)
        return self.out(self.norm(z_MQD))


class PerceiverBlock(nn.Module):
    """Attention from latents to features and latents, then a feed-forward layer."""

    def __init__(self, config: PerceiverConfig, width: int) -> None:
        super().__init__()
        self.norm_x = nn.LayerNorm(width)
        self.norm_z = nn.LayerNorm(width)
        self.attention = Attention(
            width,
            width,
            num_heads=config.heads,
            head_dim=config.head_dim,
            norm_heads=config.norm_heads,
        )
        self.norm_ff = nn.LayerNorm(width)
        self.up = nn.Linear(width, width * config.mlp_ratio, bias=False)
        self.act = activation(config.activation)
        self.down = nn.Linear(width * config.mlp_ratio, width, bias=False)

    def forward(self, z_MQD: Tensor, x_MLD: Tensor) -> Tensor:
        latents_MQD = self.norm_z(z_MQD)
        keys_MKD = torch.cat([self.norm_x(x_MLD), latents_MQD], dim=1)
        z_MQD = z_MQD + self.attention(latents_MQD, keys_MKD)
        return z_MQD + self.down(self.act(self.up(self.norm_ff(z_MQD))))

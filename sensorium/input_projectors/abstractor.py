"""The visual abstractor of mPLUG-Owl (arXiv:2304.14178).

Source: github.com/X-PLUG/mPLUG-Owl, modeling_mplug_owl.py. Two things differ from a perceiver
resampler: each layer adds to the *normed* queries, and the feed-forward layer is gated with a norm
inside. Its width is the encoder's.

Shape legend: M items, L features, Q queries, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sensorium.core.batch import Features, Grid
from sensorium.core.errors import ConfigError
from sensorium.core.parts import InputProjectorConfig
from sensorium.nn.attention import Attention
from sensorium.nn.ragged import map_items


class AbstractorConfig(InputProjectorConfig):
    """`queries` tokens and a learned one behind them that ends the picture."""

    kind: Literal["abstractor"] = "abstractor"
    queries: int = 64
    layers: int = 6
    heads: int = 16
    mlp_width: int = 4096
    norm_eps: float = 1e-6
    """Of the norm inside the feed-forward layer; the others have torch's default."""

    @classmethod
    def tiny(cls) -> AbstractorConfig:
        return cls(queries=4, layers=2, heads=2, mlp_width=24)

    def out_grid(self, grid: Grid) -> Grid:
        return Grid(1, self.queries + 1)

    def build(self, d_in: int, d_out: int) -> Abstractor:
        if d_in % self.heads:
            raise ConfigError(f"{self.heads} heads in a width of {d_in}", expected="a divisor",
                              where="projector abstractor", fix="change heads")  # fmt: skip
        return Abstractor(self, d_in, d_out)


class Abstractor(nn.Module):
    """Features (any number, d_in) -> (queries + 1, d_out)."""

    def __init__(self, config: AbstractorConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        self.queries_QD = nn.Parameter(torch.randn(config.queries, d_in) * 0.02)
        self.layers = nn.ModuleList(AbstractorLayer(config, d_in) for _ in range(config.layers))
        self.out = nn.Linear(d_in, d_out)
        self.end_D = nn.Parameter(torch.randn(d_out) * 0.02)

    def forward(self, features: Features) -> Features:
        return map_items(features, self._project, self.config.out_grid)

    def _project(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        z_MQD = self.queries_QD.expand(len(items_MLD), -1, -1)
        for layer in self.layers:
            z_MQD = layer(z_MQD, items_MLD)
        end_M1D = self.end_D.expand(len(items_MLD), 1, -1)
        return torch.cat([self.out(z_MQD), end_M1D], dim=1)


class AbstractorLayer(nn.Module):
    """Attention from queries to [queries; features], then a gated feed-forward layer."""

    def __init__(self, config: AbstractorConfig, width: int) -> None:
        super().__init__()
        self.norm_z = nn.LayerNorm(width)
        self.norm_x = nn.LayerNorm(width)
        self.attention = Attention(
            width, width, num_heads=config.heads, head_dim=width // config.heads, bias=True
        )
        self.norm_ff = nn.LayerNorm(width)
        self.gate = nn.Linear(width, config.mlp_width)
        self.up = nn.Linear(width, config.mlp_width)
        self.norm_inner = nn.LayerNorm(config.mlp_width, eps=config.norm_eps)
        self.down = nn.Linear(config.mlp_width, width)

    def forward(self, z_MQD: Tensor, x_MLD: Tensor) -> Tensor:
        z_MQD = self.norm_z(z_MQD)
        z_MQD = z_MQD + self.attention(z_MQD, torch.cat([z_MQD, self.norm_x(x_MLD)], dim=1))
        inner_MQD = self.norm_ff(z_MQD)
        gated_MQF = functional.silu(self.gate(inner_MQD)) * self.up(inner_MQD)
        return z_MQD + self.down(self.norm_inner(gated_MQF))

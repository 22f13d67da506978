"""Queries that go through a vision transformer together with the features (LLaMA-Adapter V2).

Source: github.com/OpenGVLab/LLaMA-Adapter, llama_adapter_v2_multimodal7b/llama/llama_adapter.py (paper:
arXiv:2304.15010). Features are mapped and normed, the queries stand in front of them, all attend to
all in each block, and only the queries come out.

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


class QueryVitConfig(InputProjectorConfig):
    """Defaults are LLaMA-Adapter V2's: 8 blocks over 10 queries."""

    kind: Literal["query_vit"] = "query_vit"
    queries: int = 10
    width: int = 768
    layers: int = 8
    heads: int = 16
    mlp_width: int = 3072

    @classmethod
    def tiny(cls) -> QueryVitConfig:
        return cls(queries=3, width=16, layers=2, heads=2, mlp_width=24)

    def out_grid(self, grid: Grid) -> Grid:
        return Grid(1, self.queries)

    def build(self, d_in: int, d_out: int) -> QueryVit:
        if self.width % self.heads:
            raise ConfigError(f"{self.heads} heads in a width of {self.width}", expected="a divisor",
                              where="projector query_vit", fix="change heads")  # fmt: skip
        return QueryVit(self, d_in, d_out)


class QueryVit(nn.Module):
    """Features (any number, d_in) -> (queries, d_out)."""

    def __init__(self, config: QueryVitConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        self.enter = nn.Linear(d_in, config.width)
        self.norm_in = nn.LayerNorm(config.width)
        self.queries_QD = nn.Parameter(torch.randn(config.queries, config.width))
        self.blocks = nn.ModuleList(QueryVitBlock(config) for _ in range(config.layers))
        self.out = nn.Linear(config.width, d_out)
        self.norm_out = nn.LayerNorm(d_out)

    def forward(self, features: Features) -> Features:
        return map_items(features, self._project, self.config.out_grid)

    def _project(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        queries_MQD = self.queries_QD.expand(len(items_MLD), -1, -1)
        x_MLD = torch.cat([queries_MQD, self.norm_in(self.enter(items_MLD))], dim=1)
        for block in self.blocks:
            x_MLD = block(x_MLD)
        return self.norm_out(self.out(x_MLD[:, : self.config.queries]))


class QueryVitBlock(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a residual."""

    def __init__(self, config: QueryVitConfig) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.norm_1 = nn.LayerNorm(width)
        self.attention = Attention(width, width, num_heads=heads, head_dim=width // heads, bias=True)
        self.norm_2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, width)

    def forward(self, x_MLD: Tensor) -> Tensor:
        normed_MLD = self.norm_1(x_MLD)
        x_MLD = x_MLD + self.attention(normed_MLD, normed_MLD)
        return x_MLD + self.down(functional.gelu(self.up(self.norm_2(x_MLD))))

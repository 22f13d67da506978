"""The Q-Former, query-only (BLIP-2, arXiv:2301.12597), and its map to the LLM.

A BERT of post-norm layers over learned queries; every `cross_every`-th layer also
attends to the image features.

Shape legend: M items, L features, Q queries, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features, Grid
from sensorium.core.parts import InputProjectorConfig
from sensorium.nn.attention import Attention
from sensorium.nn.ragged import map_items


class QFormerConfig(InputProjectorConfig):
    """Defaults are BLIP-2's: BERT-base with 32 queries."""

    kind: Literal["qformer"] = "qformer"
    queries: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    cross_every: int = 2
    norm_eps: float = 1e-12

    @classmethod
    def tiny(cls) -> QFormerConfig:
        return cls(queries=4, width=32, layers=2, heads=4, mlp_width=48)

    def out_grid(self, grid: Grid) -> Grid:
        return Grid(1, self.queries)

    def build(self, d_in: int, d_out: int) -> QFormer:
        return QFormer(self, d_in, d_out)


class QFormer(nn.Module):
    """Features (any number, d_in) -> (queries, d_out)."""

    def __init__(self, config: QFormerConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        # N(0, 0.02) as in the original; zeros would make all queries alike for ever.
        self.queries_QD = nn.Parameter(torch.randn(config.queries, config.width) * 0.02)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.layers = nn.ModuleList(
            QFormerLayer(config, d_in if i % config.cross_every == 0 else None)
            for i in range(config.layers)
        )
        self.out = nn.Linear(config.width, d_out)

    def forward(self, features: Features) -> Features:
        return map_items(features, self._project, self.config.out_grid)

    def _project(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        query_MQD = self.norm(self.queries_QD).expand(len(items_MLD), -1, -1)
        for layer in self.layers:
            query_MQD = layer(query_MQD, items_MLD)
        return self.out(query_MQD)


class QFormerLayer(nn.Module):
    """Self-attention, perhaps cross-attention, feed-forward; each followed by its norm."""

    def __init__(self, config: QFormerConfig, d_image: int | None) -> None:
        super().__init__()
        self.self_attention = PostNormAttention(config, config.width)
        self.cross_attention = PostNormAttention(config, d_image) if d_image else None
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, query_MQD: Tensor, image_MLD: Tensor) -> Tensor:
        query_MQD = self.self_attention(query_MQD, query_MQD)
        if self.cross_attention is not None:
            query_MQD = self.cross_attention(query_MQD, image_MLD)
        return self.norm(query_MQD + self.down(F.gelu(self.up(query_MQD))))


class PostNormAttention(nn.Module):
    """norm(x + Attn(x, keys)), BERT's order."""

    def __init__(self, config: QFormerConfig, d_key: int) -> None:
        super().__init__()
        self.attention = Attention(
            config.width,
            d_key,
            num_heads=config.heads,
            head_dim=config.width // config.heads,
            bias=True,
        )
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, x_MQD: Tensor, keys_MKD: Tensor) -> Tensor:
        return self.norm(x_MQD + self.attention(x_MQD, keys_MKD))

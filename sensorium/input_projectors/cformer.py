"""The Causal Former (Emu, arXiv:2307.05222): a T5 decoder that writes a picture as a row of tokens, each
of which knows only those before it.

Source: github.com/baaivision/Emu, Emu1/models/causal_former.py and modeling_t5.py: the stack of T5-base
(arXiv:1910.10683) over learned inputs, whose cross-attention reads features of the encoder's width.

Shape legend: M items, L features, Q tokens, D width, H heads, E width of a head.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features, Grid
from sensorium.core.parts import InputProjectorConfig
from sensorium.nn.ragged import map_items


class CFormerConfig(InputProjectorConfig):
    """Defaults are T5-base's with Emu's 32 tokens."""

    kind: Literal["cformer"] = "cformer"
    queries: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    head_dim: int = 64
    mlp_width: int = 3072
    buckets: int = 32
    """Of distances between tokens; the first half holds one distance each."""
    furthest: int = 128
    """Distances from here on share the last bucket."""
    norm_eps: float = 1e-6
    dropout: float = 0.1

    @classmethod
    def tiny(cls) -> CFormerConfig:
        return cls(queries=4, width=32, layers=2, heads=4, head_dim=8, mlp_width=48, buckets=4, furthest=6, dropout=0.0)

    def out_grid(self, grid: Grid) -> Grid:
        return Grid(1, self.queries)

    def build(self, d_in: int, d_out: int) -> CFormer:
        return CFormer(self, d_in, d_out)


class CFormer(nn.Module):
    """Features (any number, d_in) -> (queries, d_out)."""

    def __init__(self, config: CFormerConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        self.queries_QD = nn.Parameter(torch.randn(config.queries, config.width) * 0.02)
        # One table for all layers, as in T5.
        self.near = nn.Embedding(config.buckets, config.heads)
        self.layers = nn.ModuleList(CFormerLayer(config, d_in) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.drop = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.width, d_out)

    def forward(self, features: Features) -> Features:
        return map_items(features, self._project, self.config.out_grid)

    def _project(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        hidden_MQD = self.drop(self.queries_QD.expand(len(items_MLD), -1, -1))
        near_QQH = self.near(distance_buckets(self.config).to(self.queries_QD.device))
        later_QQ = torch.ones(near_QQH.shape[:2], dtype=torch.bool, device=near_QQH.device).triu(1)
        bias_HQQ = near_QQH.permute(2, 0, 1).masked_fill(later_QQ, float("-inf"))
        for layer in self.layers:
            hidden_MQD = layer(hidden_MQD, items_MLD, bias_HQQ)
        return self.out(self.drop(self.norm(hidden_MQD)))


class CFormerLayer(nn.Module):
    """Causal attention among the tokens, attention to the features, feed-forward; a norm before each."""

    def __init__(self, config: CFormerConfig, d_image: int) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.norm_self, self.norm_cross, self.norm_ff = (nn.RMSNorm(width, eps=eps) for _ in range(3))
        self.self_attention = T5Attention(config, width)
        self.cross_attention = T5Attention(config, d_image)
        self.up = nn.Linear(width, config.mlp_width, bias=False)
        self.down = nn.Linear(config.mlp_width, width, bias=False)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, hidden_MQD: Tensor, image_MLD: Tensor, bias_HQQ: Tensor) -> Tensor:
        normed_MQD = self.norm_self(hidden_MQD)
        hidden_MQD = hidden_MQD + self.drop(self.self_attention(normed_MQD, normed_MQD, bias_HQQ))
        hidden_MQD = hidden_MQD + self.drop(self.cross_attention(self.norm_cross(hidden_MQD), image_MLD))
        inner_MQD = self.drop(F.relu(self.up(self.norm_ff(hidden_MQD))))
        return hidden_MQD + self.drop(self.down(inner_MQD))


class T5Attention(nn.Module):
    """Attention as T5 has it: no biases, and scores that are not scaled."""

    def __init__(self, config: CFormerConfig, d_key: int) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.config = config
        self.q = nn.Linear(config.width, inner, bias=False)
        self.k = nn.Linear(d_key, inner, bias=False)
        self.v = nn.Linear(d_key, inner, bias=False)
        self.out = nn.Linear(inner, config.width, bias=False)

    def forward(self, query_MQD: Tensor, key_MLD: Tensor, bias_HQL: Tensor | None = None) -> Tensor:
        q_MHQE, k_MHLE, v_MHLE = (
            part.unflatten(-1, (self.config.heads, -1)).transpose(1, 2)
            for part in (self.q(query_MQD), self.k(key_MLD), self.v(key_MLD))
        )
        drop = self.config.dropout if self.training else 0.0
        mask = None if bias_HQL is None else bias_HQL[None]
        mixed_MHQE = F.scaled_dot_product_attention(
            q_MHQE, k_MHLE, v_MHLE, attn_mask=mask, dropout_p=drop, scale=1.0
        )
        return self.out(mixed_MHQE.transpose(1, 2).flatten(2))


def distance_buckets(config: CFormerConfig) -> Tensor:
    """(Q, Q): the bucket of how far a token stands behind another; 0 for itself and what follows it.

    Half of the buckets hold one distance each, the others grow by a constant factor up to `furthest`.
    """
    places_Q = torch.arange(config.queries, device="cpu")
    back_QQ = (places_Q[:, None] - places_Q[None]).clamp(min=0)
    exact = config.buckets // 2
    growth = torch.log(back_QQ.clamp(min=1).float() / exact) / math.log(config.furthest / exact)
    coarse_QQ = (exact + (growth * (config.buckets - exact)).long()).clamp(max=config.buckets - 1)
    return torch.where(back_QQ < exact, back_QQ, coarse_QQ)

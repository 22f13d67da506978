"""Kosmos-2's projector (arXiv:2306.14824): latents attend once to the features and themselves.

Shape legend: M items, L features, Q latents, D width of the LLM.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sensorium.core.batch import Features, Grid
from sensorium.core.errors import ConfigError
from sensorium.core.parts import InputProjectorConfig
from sensorium.nn.attention import Attention
from sensorium.nn.ragged import map_items


class LatentQueryConfig(InputProjectorConfig):
    """A linear map to the LLM's width, then one attention from `latents` to [features; latents]."""

    kind: Literal["latent_query"] = "latent_query"
    latents: int = 64
    heads: int = 32

    @classmethod
    def tiny(cls) -> LatentQueryConfig:
        return cls(latents=4, heads=2)

    def out_grid(self, grid: Grid) -> Grid:
        return Grid(1, self.latents)

    def build(self, d_in: int, d_out: int) -> LatentQuery:
        if d_out % self.heads:
            raise ConfigError(f"{self.heads} heads in a width of {d_out}", expected="a divisor",
                              where="projector latent_query", fix="change heads")  # fmt: skip
        return LatentQuery(self, d_in, d_out)


class LatentQuery(nn.Module):
    """Features (any number, d_in) -> (latents, d_out)."""

    def __init__(self, config: LatentQueryConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        self.dense = nn.Linear(d_in, d_out)
        self.latents_QD = nn.Parameter(torch.randn(config.latents, d_out))
        self.attention = Attention(
            d_out, d_out, num_heads=config.heads, head_dim=d_out // config.heads, bias=True
        )

    def forward(self, features: Features) -> Features:
        return map_items(features, self._project, self.config.out_grid)

    def _project(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        latents_MQD = self.latents_QD.expand(len(items_MLD), -1, -1)
        keys_MKD = torch.cat([self.dense(items_MLD), latents_MQD], dim=1)
        return self.attention(latents_MQD, keys_MKD)

"""Qwen-VL's position-aware adapter (arXiv:2308.12966): one cross-attention whose queries and keys
know where they are.

Shape legend: M items, L features, Q queries, D width of the LLM, S side of the queries' square.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sensorium.core.batch import Features, Grid
from sensorium.core.errors import ConfigError
from sensorium.core.parts import InputProjectorConfig
from sensorium.nn.attention import Attention
from sensorium.nn.positions import stretched
from sensorium.nn.ragged import map_items

PERIOD = 10_000.0


class PositionAwareConfig(InputProjectorConfig):
    """side x side queries attend to the features; sines and cosines of both axes are added to queries
    and keys but not to values. Norms before and after, and a last square map."""

    kind: Literal["position_aware"] = "position_aware"
    side: int = 16
    heads: int = 32
    norm_eps: float = 1e-6

    @classmethod
    def tiny(cls) -> PositionAwareConfig:
        return cls(side=2, heads=2)

    def out_grid(self, grid: Grid) -> Grid:
        if grid.prefix:
            raise ConfigError(
                f"{grid.prefix} tokens outside the grid have no position",
                fix="choose feature: patch for the encoder",
            )
        return Grid(self.side, self.side)

    def build(self, d_in: int, d_out: int) -> PositionAware:
        if d_out % self.heads or d_out % 4:
            raise ConfigError(f"a width of {d_out}", expected=f"a multiple of 4 and of {self.heads} heads",
                              where="projector position_aware", fix="change heads")  # fmt: skip
        return PositionAware(self, d_in, d_out)


class PositionAware(nn.Module):
    """Features on HxW of d_in -> on SxS of d_out."""

    table_QD: Tensor

    def __init__(self, config: PositionAwareConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        self.queries_QD = nn.Parameter(torch.randn(config.side**2, d_out) * 0.02)
        # Kept with the weights: Qwen-VL's own were rounded to bf16 when they were published.
        self.register_buffer("table_QD", sincos_positions(config.side, self.queries_QD).flatten(0, 1))
        self.kv_proj = nn.Linear(d_in, d_out, bias=False) if d_in != d_out else nn.Identity()
        self.norm_q = nn.LayerNorm(d_out, eps=config.norm_eps)
        self.norm_kv = nn.LayerNorm(d_out, eps=config.norm_eps)
        self.attention = Attention(
            d_out, d_out, num_heads=config.heads, head_dim=d_out // config.heads, bias=True
        )
        self.norm_out = nn.LayerNorm(d_out, eps=config.norm_eps)
        self.out = nn.Linear(d_out, d_out, bias=False)

    def forward(self, features: Features) -> Features:
        return map_items(features, self._project, self.config.out_grid)

    def _project(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        values_MLD = self.norm_kv(self.kv_proj(items_MLD))
        queries_QD = self.norm_q(self.queries_QD) + self.table_QD
        keys_MLD = values_MLD + stretched(self.table_QD, grid.h, grid.w)
        queries_MQD = queries_QD.expand(len(items_MLD), -1, -1)
        mixed_MQD = self.attention(queries_MQD, keys_MLD, values=values_MLD)
        return self.out(self.norm_out(mixed_MQD))


def sincos_positions(side: int, like: Tensor) -> Tensor:
    """(side, side, D): sines and cosines of the column, then of the row, a quarter of D each."""
    quarter = like.shape[-1] // 4
    steps_D = torch.arange(quarter, dtype=torch.float64) / quarter
    angles_SD = torch.arange(side, dtype=torch.float64)[:, None] * PERIOD**-steps_D
    waves_SD = torch.cat([angles_SD.sin(), angles_SD.cos()], dim=1)
    columns_SSD = waves_SD[None].expand(side, -1, -1)
    rows_SSD = waves_SD[:, None].expand(-1, side, -1)
    return torch.cat([columns_SSD, rows_SSD], dim=2).to(like)

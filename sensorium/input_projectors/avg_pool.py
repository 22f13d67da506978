"""Average pooling to a small grid, then a linear map or an MLP (Emu2, arXiv:2312.13286).

Shape legend: M items, L tokens, D width, H/W positions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features, Grid
from sensorium.core.parts import InputProjectorConfig
from sensorium.input_projectors.mlp import MlpConfig, mlp
from sensorium.nn.ragged import map_items


class AvgPoolConfig(InputProjectorConfig):
    """side x side tokens; windows overlap where the grid does not divide evenly.

    Tokens outside the grid (CLS) are kept in front. A grid smaller than `side` stays.
    With `summary`, one more token stands before all: the mean of the whole map through a
    linear layer of its own, because what a picture shows and what a corner of it shows are
    different questions.
    """

    kind: Literal["avg_pool"] = "avg_pool"
    side: int = 8
    depth: int = 1
    hidden: int | None = None
    summary: bool = False
    norm_in: bool = False
    bias: bool = True
    """Of the layers."""
    dropout: float = 0.0
    """Of pooled features, while the projector learns: small data sets are learnt by heart
    otherwise."""

    @classmethod
    def tiny(cls) -> AvgPoolConfig:
        return cls(side=2)

    def out_grid(self, grid: Grid) -> Grid:
        prefix = grid.prefix + (1 if self.summary else 0)
        return Grid(min(self.side, grid.h), min(self.side, grid.w), prefix)

    @property
    def two_steps(self) -> bool:
        return not (self.summary or self.norm_in or self.dropout)

    def build(self, d_in: int, d_out: int) -> AvgPoolProjector:
        return AvgPoolProjector(self, d_in, d_out)


class AvgPoolProjector(nn.Module):
    """Features on HxW of d_in -> on side x side of d_out."""

    def __init__(self, config: AvgPoolConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(d_in) if config.norm_in else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.layers = mlp(MlpConfig(depth=config.depth, hidden=config.hidden, bias=config.bias), d_in, d_out)
        self.summary = nn.Linear(d_in, d_out) if config.summary else None

    def forward(self, features: Features) -> Features:
        return map_items(features, self._project, self.config.out_grid)

    def pooled(self, features: Features) -> Features:
        """What is mapped to d_out, still of d_in."""
        return map_items(features, self._pool, self.config.out_grid)

    def summed_up(self, mean_MD: Tensor) -> Tensor:
        """Means of whole maps, (M, d_in) -> what `summary` makes of them, (M, d_out)."""
        if self.summary is None:
            raise TypeError("a projector avg_pool without summary sums nothing up")
        return self.summary(self.norm(mean_MD.to(self.summary.weight.dtype)))

    def widen(self, values: Tensor) -> Tensor:
        """(..., d_in), as `pooled` has them -> (..., d_out)."""
        return self.layers(values)

    def _pool(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        out = self.config.out_grid(grid)
        prefix, patches = items_MLD[:, : grid.prefix], items_MLD[:, grid.prefix :]
        map_MDHW = patches.transpose(1, 2).unflatten(2, (grid.h, grid.w))
        pooled = F.adaptive_avg_pool2d(map_MDHW, (out.h, out.w)).flatten(2).transpose(1, 2)
        return torch.cat([prefix, pooled], dim=1)

    def _project(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        out_MLD = self.layers(self.dropout(self.norm(self._pool(items_MLD, grid))))
        if self.summary is None:
            return out_MLD
        mean_M1D = self.dropout(self.norm(items_MLD[:, grid.prefix :].mean(dim=1, keepdim=True)))
        return torch.cat([self.summary(mean_M1D), out_MLD], dim=1)

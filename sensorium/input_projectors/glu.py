"""The gated adapter of CogVLM (arXiv:2311.03079).

Shape legend: M items, L tokens, D width, F inner width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sensorium.core.batch import Features, Grid
from sensorium.core.parts import InputProjectorConfig
from sensorium.nn.ragged import map_items


class GluConfig(InputProjectorConfig):
    """Linear map, layer norm, GELU, then the gated feed-forward layer of a LLaMA, without biases."""

    kind: Literal["glu"] = "glu"
    mlp_width: int = 11008
    ends: bool = False
    """Two learned tokens around the picture: `boi` and `eoi`."""

    @classmethod
    def tiny(cls) -> GluConfig:
        return cls(mlp_width=24, ends=True)

    def out_grid(self, grid: Grid) -> Grid:
        return Grid(1, grid.tokens + 2) if self.ends else grid

    def build(self, d_in: int, d_out: int) -> Glu:
        return Glu(self, d_in, d_out)


class Glu(nn.Module):
    """Features (N, d_in) -> (N, d_out), with two more for each item where `ends` asks for them."""

    def __init__(self, config: GluConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        self.proj = nn.Linear(d_in, d_out, bias=False)
        self.norm = nn.LayerNorm(d_out)
        self.gate = nn.Linear(d_out, config.mlp_width, bias=False)
        self.up = nn.Linear(d_out, config.mlp_width, bias=False)
        self.down = nn.Linear(config.mlp_width, d_out, bias=False)
        self.ends_2D = nn.Parameter(torch.zeros(2, d_out)) if config.ends else None

    def forward(self, features: Features) -> Features:
        return map_items(features, self._project, self.config.out_grid)

    def _project(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        hidden_MLD = functional.gelu(self.norm(self.proj(items_MLD)))
        gated_MLF = functional.silu(self.gate(hidden_MLD)) * self.up(hidden_MLD)
        out_MLD = self.down(gated_MLF)
        if self.ends_2D is None:
            return out_MLD
        first_M1D, last_M1D = self.ends_2D[:, None, None].expand(2, len(out_MLD), 1, -1)
        return torch.cat([first_M1D, out_MLD, last_M1D], dim=1)

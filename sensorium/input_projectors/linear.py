"""One linear map for each token (LLaVA v1, arXiv:2304.08485), or for a pooled one into several (GILL, arXiv:2305.17216).

Shape legend: N tokens, D width of the LLM.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from sensorium.core.batch import Features, Grid
from sensorium.core.errors import ConfigError
from sensorium.core.parts import InputProjectorConfig


class LinearConfig(InputProjectorConfig):
    """As many tokens out as in, or several for each."""

    kind: Literal["linear"] = "linear"
    bias: bool = True
    project: bool = True
    """False: features stay as they are, being of the right width already (SigLIP's pooled ones)."""
    tokens: int = Field(default=1, ge=1)
    """What a pooled feature becomes."""

    @classmethod
    def tiny(cls) -> LinearConfig:
        return cls()

    def out_grid(self, grid: Grid) -> Grid:
        if self.tokens == 1:
            return grid
        if grid.tokens != 1 or not self.project:
            raise ConfigError(f"{self.tokens} tokens for each of {grid.tokens}", where="projector linear",
                              expected="a pooled feature, mapped", fix="choose feature: pooled, or tokens: 1")  # fmt: skip
        return Grid(1, self.tokens)

    def build(self, d_in: int, d_out: int) -> LinearProjector | Unprojected:
        return LinearProjector(d_in, d_out, self) if self.project else Unprojected()


class LinearProjector(nn.Module):
    """Features (N, d_in) -> (N, d_out), or as many times more as there are tokens for each."""

    def __init__(self, d_in: int, d_out: int, config: LinearConfig) -> None:
        super().__init__()
        self.config, self.d_out = config, d_out
        self.linear = nn.Linear(d_in, d_out * config.tokens, bias=config.bias)

    def forward(self, features: Features) -> Features:
        values_ND = self.linear(features.values_ND).reshape(-1, self.d_out)
        return Features(values_ND, tuple(map(self.config.out_grid, features.grids)))


class Unprojected(nn.Module):
    """Has no parameters."""

    def forward(self, features: Features) -> Features:
        return features

"""One linear map for each token (LLaVA v1, arXiv:2304.08485)."""

from __future__ import annotations

from typing import Literal

from torch import nn

from sensorium.core.batch import Features, Grid
from sensorium.core.parts import InputProjectorConfig


class LinearConfig(InputProjectorConfig):
    """As many tokens out as in."""

    kind: Literal["linear"] = "linear"
    bias: bool = True
    project: bool = True
    """False: features stay as they are, being of the right width already (SigLIP's pooled ones)."""

    @classmethod
    def tiny(cls) -> LinearConfig:
        return cls()

    def out_grid(self, grid: Grid) -> Grid:
        return grid

    def build(self, d_in: int, d_out: int) -> LinearProjector | Unprojected:
        return LinearProjector(d_in, d_out, self.bias) if self.project else Unprojected()


class LinearProjector(nn.Module):
    """Features (N, d_in) -> (N, d_out)."""

    def __init__(self, d_in: int, d_out: int, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(d_in, d_out, bias=bias)

    def forward(self, features: Features) -> Features:
        return Features(self.linear(features.values_ND), features.grids)


class Unprojected(nn.Module):
    """Has no parameters."""

    def forward(self, features: Features) -> Features:
        return features

"""`mlp{k}x_gelu`: the LLaVA-1.5 projector (arXiv:2310.03744)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field
from torch import nn

from sensorium.core.batch import Features, Grid
from sensorium.core.parts import InputProjectorConfig
from sensorium.nn.activations import ActivationName, activation


class MlpConfig(InputProjectorConfig):
    """`depth` linear layers with an activation between them; state-dict indices 0, 2, 4."""

    kind: Literal["mlp"] = "mlp"
    depth: int = Field(default=2, ge=1, le=8)
    activation: ActivationName = "gelu"
    norm_in: bool = False
    """Layer norm before the first layer, for features of very different scales."""
    hidden: int | None = None
    """Width between the layers; None: the LLM's."""
    bias: bool = True

    @classmethod
    def tiny(cls) -> MlpConfig:
        return cls()

    def out_grid(self, grid: Grid) -> Grid:
        return grid

    def build(self, d_in: int, d_out: int) -> MlpProjector:
        return MlpProjector(self, d_in, d_out)


class MlpProjector(nn.Module):
    """Features (N, d_in) -> (N, d_out)."""

    def __init__(self, config: MlpConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_in) if config.norm_in else nn.Identity()
        self.layers = mlp(config, d_in, d_out)

    def forward(self, features: Features) -> Features:
        return Features(self.layers(self.norm(features.values_ND)), features.grids)


def mlp(config: MlpConfig, d_in: int, d_out: int) -> nn.Sequential:
    """Linear layers with activations between them."""
    widths = [d_in, *([config.hidden or d_out] * (config.depth - 1)), d_out]
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        if layers:
            layers.append(activation(config.activation))
        layers.append(nn.Linear(width_in, width_out, bias=config.bias))
    return nn.Sequential(*layers)

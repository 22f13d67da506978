"""Pixel shuffle: fold factor x factor neighbours into one token, then an MLP.

Idefics3 and SmolVLM (arXiv:2408.12637), InternVL (arXiv:2404.16821).

Shape legend: M items, H/W positions, F factor, D width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from sensorium.core.batch import Features, Grid
from sensorium.core.errors import ConfigError
from sensorium.core.parts import InputProjectorConfig
from sensorium.input_projectors.mlp import MlpConfig, mlp
from sensorium.nn.ragged import map_items


class PixelShuffleConfig(InputProjectorConfig):
    """factor**2 times fewer tokens, each factor**2 times as wide before the MLP."""

    kind: Literal["pixel_shuffle"] = "pixel_shuffle"
    factor: int = 2
    depth: int = 1

    @classmethod
    def tiny(cls) -> PixelShuffleConfig:
        return cls()

    def out_grid(self, grid: Grid) -> Grid:
        return folded_grid(grid, self.factor, "pixel shuffle")

    def build(self, d_in: int, d_out: int) -> PixelShuffleProjector:
        return PixelShuffleProjector(self, d_in, d_out)


class PixelShuffleProjector(nn.Module):
    """Features on HxW of d_in -> on H/F x W/F of d_out."""

    def __init__(self, config: PixelShuffleConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        self.layers = mlp(MlpConfig(depth=config.depth), d_in * config.factor**2, d_out)

    def forward(self, features: Features) -> Features:
        return map_items(features, self._project, self.config.out_grid)

    def _project(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        return self.layers(fold(items_MLD, grid, self.config.factor))


def folded_grid(grid: Grid, factor: int, name: str) -> Grid:
    """The layout after folding.

    Raises:
        ConfigError: the factor does not divide the sides, or tokens stand in front of the grid.
    """
    if grid.h % factor or grid.w % factor:
        raise ConfigError(
            f"{name} by {factor} of a {grid.h}x{grid.w} grid",
            expected=f"sides that {factor} divides",
            fix="change the factor or the encoder's image size",
        )
    if grid.prefix:
        raise ConfigError(
            f"{name} of features with {grid.prefix} tokens outside the grid",
            fix="choose feature: patch for the encoder",
        )
    return Grid(grid.h // factor, grid.w // factor)


def fold(items_MLD: Tensor, grid: Grid, factor: int) -> Tensor:
    """factor x factor neighbours side by side, in reading order: (M, L/F², F²·D)."""
    count, _, width = items_MLD.shape
    blocks = items_MLD.view(count, grid.h // factor, factor, grid.w // factor, factor, width)
    return blocks.permute(0, 1, 3, 2, 4, 5).reshape(count, -1, factor * factor * width)

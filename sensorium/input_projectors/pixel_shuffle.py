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
        if grid.h % self.factor or grid.w % self.factor:
            raise ConfigError(
                f"pixel shuffle by {self.factor} of a {grid.h}x{grid.w} grid",
                expected=f"sides that {self.factor} divides",
                fix="change the factor or the encoder's image size",
            )
        if grid.prefix:
            raise ConfigError(
                f"pixel shuffle of features with {grid.prefix} tokens outside the grid",
                fix="choose feature: patch for the encoder",
            )
        return Grid(grid.h // self.factor, grid.w // self.factor)

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
        f = self.config.factor
        count, _, width = items_MLD.shape
        blocks = items_MLD.view(count, grid.h // f, f, grid.w // f, f, width)
        folded = blocks.permute(0, 1, 3, 2, 4, 5).reshape(count, -1, f * f * width)
        return self.layers(folded)

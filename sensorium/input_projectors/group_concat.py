"""Neighbours of one row side by side, then a linear map: MiniGPT-v2 (arXiv:2310.09478).

Shape legend: M items, L tokens, G tokens of a group, D width.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from sensorium.core.batch import Features, Grid
from sensorium.core.errors import ConfigError
from sensorium.core.parts import InputProjectorConfig
from sensorium.nn.ragged import map_items


class GroupConcatConfig(InputProjectorConfig):
    """`group` times fewer tokens, each from so many consecutive ones of a row."""

    kind: Literal["group_concat"] = "group_concat"
    group: int = Field(default=4, ge=1)

    @classmethod
    def tiny(cls) -> GroupConcatConfig:
        return cls(group=2)

    def out_grid(self, grid: Grid) -> Grid:
        if grid.w % self.group or grid.prefix:
            raise ConfigError(
                f"groups of {self.group} in a {grid.h}x{grid.w} grid with {grid.prefix} tokens in front",
                expected=f"rows that {self.group} divides, and nothing in front",
                fix="change the group, or choose feature: patch for the encoder",
            )
        return Grid(grid.h, grid.w // self.group)

    def build(self, d_in: int, d_out: int) -> GroupConcat:
        return GroupConcat(self, d_in, d_out)


class GroupConcat(nn.Module):
    """Features on HxW of d_in -> on H x W/G of d_out."""

    def __init__(self, config: GroupConcatConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        self.out = nn.Linear(d_in * config.group, d_out)

    def forward(self, features: Features) -> Features:
        return map_items(features, self._project, self.config.out_grid)

    def _project(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        # Rows are whole numbers of groups, so that no group runs over the end of one.
        groups = grid.tokens // self.config.group
        return self.out(items_MLD.reshape(len(items_MLD), groups, -1))

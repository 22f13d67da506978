"""The patch merger of Qwen2-VL (arXiv:2409.12191), Qwen2.5-VL (arXiv:2502.13923) and
LLaVA-OneVision-1.5 (arXiv:2509.23661).

Shape legend: M items, L tokens, D width.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from sensorium.core.batch import Features, Grid
from sensorium.core.parts import InputProjectorConfig
from sensorium.input_projectors.pixel_shuffle import fold, folded_grid
from sensorium.nn.norms import NormName, norm
from sensorium.nn.ragged import map_items


class PatchMergerConfig(InputProjectorConfig):
    """A norm of each patch, factor x factor of them side by side, two layers with GELU.

    Unlike pixel shuffle it norms before folding, and its inner width is that of the folded patch.
    """

    kind: Literal["patch_merger"] = "patch_merger"
    factor: int = Field(default=2, ge=1)
    norm: NormName = "layer"
    """Qwen2.5-VL's is `rms`."""
    norm_eps: float = 1e-6

    @classmethod
    def tiny(cls) -> PatchMergerConfig:
        return cls()

    def out_grid(self, grid: Grid) -> Grid:
        return folded_grid(grid, self.factor, "the patch merger")

    def build(self, d_in: int, d_out: int) -> PatchMerger:
        return PatchMerger(self, d_in, d_out)


class PatchMerger(nn.Module):
    """Features on HxW of d_in -> on H/F x W/F of d_out."""

    def __init__(self, config: PatchMergerConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        inner = d_in * config.factor**2
        self.norm = norm(config.norm, d_in, config.norm_eps)
        self.layers = nn.Sequential(nn.Linear(inner, inner), nn.GELU(), nn.Linear(inner, d_out))

    def forward(self, features: Features) -> Features:
        return map_items(features, self._project, self.config.out_grid)

    def _project(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        return self.layers(fold(self.norm(items_MLD), grid, self.config.factor))

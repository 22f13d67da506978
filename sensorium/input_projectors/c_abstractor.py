"""The C-Abstractor (Honeybee, arXiv:2312.06742; chosen by MM1, arXiv:2403.09611): convolutions that keep
where things are, around an average pool to the number of tokens that is wanted.

Source: github.com/khanrc/honeybee, honeybee/projectors/projectors.py: blocks of RegNet (arXiv:2003.13678) with
squeeze and excitation, as timm builds them, normed over channels.

Shape legend: M items, L features, C channels, H/W sides of the map.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sensorium.core.batch import Features, Grid
from sensorium.core.errors import ConfigError
from sensorium.core.parts import InputProjectorConfig
from sensorium.nn.positions import stretched
from sensorium.nn.ragged import map_items

SQUEEZE = 0.25
"""Width inside squeeze and excitation, of the block's input."""


class CAbstractorConfig(InputProjectorConfig):
    """Defaults are Honeybee's, with the 144 tokens that MM1 takes too."""

    kind: Literal["c_abstractor"] = "c_abstractor"
    tokens: int = 144
    """A square number."""
    width: int = 1024
    depth: int = 3
    """Blocks before the pool, and as many behind it."""
    mlp_depth: int = 2
    position_side: int = 16
    """Of the learned positions that are added to the features; other maps get them stretched."""

    @classmethod
    def tiny(cls) -> CAbstractorConfig:
        return cls(tokens=4, width=16, depth=1, position_side=3)

    def out_grid(self, grid: Grid) -> Grid:
        side = math.isqrt(self.tokens)
        if side**2 != self.tokens:
            raise ConfigError(f"{self.tokens} tokens", expected="a square number",
                              where="projector c_abstractor", fix="change tokens")  # fmt: skip
        if grid.prefix:
            raise ConfigError(
                f"{grid.prefix} tokens outside the grid, which a convolution cannot take",
                fix="choose feature: patch for the encoder",
            )
        return Grid(side, side)

    def build(self, d_in: int, d_out: int) -> CAbstractor:
        return CAbstractor(self, d_in, d_out)


class CAbstractor(nn.Module):
    """Features on HxW of d_in -> `tokens` of d_out."""

    def __init__(self, config: CAbstractorConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        self.positions_PC = nn.Parameter(torch.randn(config.position_side**2, d_in) * 0.02)
        self.before = _stage(config.depth, d_in, config.width)
        self.behind = _stage(config.depth, config.width, config.width)
        layers: list[nn.Module] = [nn.Linear(config.width, d_out)]
        for _ in range(1, config.mlp_depth):
            layers += [nn.SiLU(), nn.Linear(d_out, d_out)]
        self.readout = nn.Sequential(*layers)

    def forward(self, features: Features) -> Features:
        return map_items(features, self._project, self.config.out_grid)

    def _project(self, items_MLC: Tensor, grid: Grid) -> Tensor:
        placed_MLC = items_MLC + stretched(self.positions_PC, grid.h, grid.w)
        map_MCHW = placed_MLC.transpose(1, 2).unflatten(2, (grid.h, grid.w))
        side = math.isqrt(self.config.tokens)
        pooled_MCHW = functional.adaptive_avg_pool2d(self.before(map_MCHW), (side, side))
        return self.readout(self.behind(pooled_MCHW).flatten(2).transpose(1, 2))


def _stage(depth: int, d_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(*(RegBlock(width if i else d_in, width) for i in range(depth)))


class RegBlock(nn.Module):
    """1x1, 3x3 of each channel alone, squeeze and excitation, 1x1; SiLU behind the sum."""

    def __init__(self, d_in: int, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(d_in, width, 1)
        self.conv2 = ConvNorm(width, width, 3, groups=width)
        self.squeeze = nn.Conv2d(width, round(d_in * SQUEEZE), kernel_size=1)
        self.excite = nn.Conv2d(round(d_in * SQUEEZE), width, kernel_size=1)
        self.conv3 = ConvNorm(width, width, 1)
        self.shortcut = ConvNorm(d_in, width, 1) if d_in != width else nn.Identity()

    def forward(self, x_MCHW: Tensor) -> Tensor:
        inner_MCHW = functional.silu(self.conv2(functional.silu(self.conv1(x_MCHW))))
        mean_MC11 = inner_MCHW.mean((2, 3), keepdim=True)
        gate_MC11 = self.excite(functional.silu(self.squeeze(mean_MC11))).sigmoid()
        return functional.silu(self.conv3(inner_MCHW * gate_MC11) + self.shortcut(x_MCHW))


class ConvNorm(nn.Module):
    """A convolution without bias, then a norm over channels at each place."""

    def __init__(self, d_in: int, d_out: int, size: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(d_in, d_out, size, padding=size // 2, groups=groups, bias=False)
        self.norm = nn.LayerNorm(d_out)

    def forward(self, x_MCHW: Tensor) -> Tensor:
        return self.norm(self.conv(x_MCHW).movedim(1, -1)).movedim(-1, 1)

"""Two towers side by side: their features are concatenated in width.

Prismatic (arXiv:2402.07865) and Eyes Wide Shut's interleaved variant (arXiv:2401.06209)
pair a CLIP-like tower with DINOv2 this way. The second tower's map is resampled to the
first's grid where they differ.

Shape legend: N pictures, L tokens, D width, H/W positions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import SerializeAsAny
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features, Grid, Preprocess
from sensorium.core.config import kinds
from sensorium.core.errors import ConfigError
from sensorium.core.parts import EncoderConfig
from sensorium.encoders import ENCODERS

AnyEncoder = Annotated[SerializeAsAny[EncoderConfig], kinds(ENCODERS, EncoderConfig)]


class FusedConfig(EncoderConfig):
    """`first` decides the grid; both see the same picture, each at its own size."""

    kind: Literal["fused"] = "fused"
    first: AnyEncoder
    second: AnyEncoder

    @classmethod
    def tiny(cls) -> FusedConfig:
        from sensorium.encoders.dinov2 import Dinov2Config
        from sensorium.encoders.siglip import SiglipConfig

        return cls(first=SiglipConfig.tiny(), second=Dinov2Config.tiny())

    @property
    def out_dim(self) -> int:
        return self.first.out_dim + self.second.out_dim

    def preprocess(self) -> Preprocess:
        one, two = self.first.preprocess(), self.second.preprocess()
        # Each tower normalises its own input; only the travelling size is shared.
        return one if one.size_px >= two.size_px else two

    def grid(self) -> Grid:
        one, two = self.first.grid(), self.second.grid()
        if one.prefix or two.prefix:
            raise ConfigError(
                "fused towers with tokens outside the grid",
                expected="patch features of both",
                fix="choose feature: patch for both encoders",
            )
        return one

    def check(self) -> None:
        """Refuse weights that are named for the pair instead of for its towers, and what these refuse."""
        if self.weights or any(isinstance(t, FusedConfig) for t in (self.first, self.second)):
            raise ConfigError(
                "a fused encoder with weights of its own or with fused towers inside",
                fix="name weights on first and second, which are single towers",
            )
        self.grid()
        self.first.check()
        self.second.check()

    def build(self, folder: Path | None = None) -> Fused:
        """Build both towers; weights, if any, lie in `folder/first` and `folder/second`."""
        self.check()
        return Fused(self, folder)


class Fused(nn.Module):
    """Runs both towers and lays the second's map over the first's grid."""

    def __init__(self, config: FusedConfig, folder: Path | None = None) -> None:
        super().__init__()
        self.config = config
        self.first: nn.Module = config.first.build(_inside(folder, "first"))
        self.second: nn.Module = config.second.build(_inside(folder, "second"))

    def trainable_blocks(self) -> list[nn.Module]:
        """Layers of both towers, paired from the output backwards."""
        one: list[nn.Module] = self.first.trainable_blocks()  # pyright: ignore[reportCallIssue]
        two: list[nn.Module] = self.second.trainable_blocks()  # pyright: ignore[reportCallIssue]
        depth = max(len(one), len(two))
        one = [nn.Identity()] * (depth - len(one)) + one
        two = [nn.Identity()] * (depth - len(two)) + two
        return [nn.ModuleList(pair) for pair in zip(one, two, strict=True)]

    def forward(self, pixels_NCHW: Tensor) -> Features:
        """(N, 3, S, S) uint8 -> concatenated features on the first tower's grid."""
        one: Features = self.first(_resize(pixels_NCHW, self.config.first.preprocess()))
        two: Features = self.second(_resize(pixels_NCHW, self.config.second.preprocess()))
        count, grid, other = len(pixels_NCHW), self.config.first.grid(), self.config.second.grid()
        map_NLD = two.values_ND.view(count, other.h * other.w, -1)
        if (other.h, other.w) != (grid.h, grid.w):
            map_NDHW = map_NLD.transpose(1, 2).unflatten(2, (other.h, other.w))
            map_NDHW = F.interpolate(
                map_NDHW, size=(grid.h, grid.w), mode="bilinear", align_corners=False
            )
            map_NLD = map_NDHW.flatten(2).transpose(1, 2)
        values_ND = torch.cat([one.values_ND, map_NLD.flatten(0, 1)], dim=-1)
        return Features(values_ND, one.grids)


def _inside(folder: Path | None, name: str) -> Path | None:
    """The subfolder of one tower; a tower without pretrained weights has none."""
    if folder is None or not (folder / name).exists():
        return None
    return folder / name


def _resize(pixels_NCHW: Tensor, preprocess: Preprocess) -> Tensor:
    size = preprocess.size_px
    if pixels_NCHW.shape[-1] == size:
        return pixels_NCHW
    resized = F.interpolate(
        pixels_NCHW.float(), size=(size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return resized.clamp(0, 255)

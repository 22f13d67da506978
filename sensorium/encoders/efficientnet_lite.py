"""EfficientNet-Lite: a small convolutional tower (Apache-2.0 weights, ImageNet).

Source: tensorflow/tpu `models/official/efficientnet/lite`; layout of block strings as
there. No squeeze-and-excitation, ReLU6, fixed stem and head widths. Batch norms always
use their stored statistics: small fine-tuning batches would spoil them.

Shape legend: N pictures, C channels, H/W positions, D width of the features.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import torch
from pydantic import field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features, Grid, Preprocess
from sensorium.core.errors import ConfigError
from sensorium.core.parts import EncoderConfig
from sensorium.encoders.pixels import Normalise
from sensorium.nn.pretrained import load_folder

Level = Literal["stride8", "stride16", "stride32", "head"]

# (repeats, kernel, stride, expansion, width out) of each stage of B0.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# variant -> (width factor, depth factor, input size)
VARIANTS = {
    "lite0": (1.0, 1.0, 224),
    "lite1": (1.0, 1.1, 240),
    "lite2": (1.1, 1.2, 260),
    "lite3": (1.2, 1.4, 280),
    "lite4": (1.4, 1.8, 300),
}
STEM_WIDTH, HEAD_WIDTH, NORM_EPS = 32, 1280, 1e-3
LEVEL_STRIDE = {"stride8": 8, "stride16": 16, "stride32": 32, "head": 32}
LEVEL_STAGE = {"stride8": 2, "stride16": 4, "stride32": 6, "head": 6}
PIECE = 4
"""Pictures that a CPU takes at once: its maps stay in the cache, and from 16 on other kernels, which round otherwise,
would make a picture's features depend on how many are beside it."""


class EfficientNetLiteConfig(EncoderConfig):
    """EfficientNet-Lite 0 to 4; features of one or more depths, side by side.

    Finer levels are folded (space to depth) onto the coarsest grid asked for.
    """

    kind: Literal["efficientnet_lite"] = "efficientnet_lite"
    variant: Literal["lite0", "lite1", "lite2", "lite3", "lite4"] = "lite0"
    image_size_px: int | None = None
    """None: the size the variant was trained at. Any size will do: where the coarsest stride
    does not divide it, as with lite1 to lite4 at their own sizes, the tokens along the edges
    see zeros beyond the picture."""
    levels: tuple[Level, ...] = ("head",)

    @field_validator("image_size_px")
    @classmethod
    def _has_pixels(cls, value: int | None) -> int | None:
        if value is not None and value < 1:
            raise ConfigError(f"image_size_px {value}", expected="at least 1, or null",
                              where="encoder efficientnet_lite", fix="224 suits lite0")  # fmt: skip
        return value

    @field_validator("levels")
    @classmethod
    def _has_levels(cls, value: tuple[Level, ...]) -> tuple[Level, ...]:
        if not value:
            raise ConfigError("levels is empty", expected=f"one or more of {', '.join(LEVEL_STRIDE)}",
                              where="encoder efficientnet_lite", fix="levels: [head]")  # fmt: skip
        return value

    @classmethod
    def tiny(cls) -> EfficientNetLiteConfig:
        return cls(image_size_px=64, levels=("stride16",))

    @property
    def size_px(self) -> int:
        return self.image_size_px or VARIANTS[self.variant][2]

    @property
    def stride(self) -> int:
        return max(LEVEL_STRIDE[level] for level in self.levels)

    @property
    def out_dim(self) -> int:
        widths = self.stage_widths()
        total = 0
        for level in self.levels:
            width = HEAD_WIDTH if level == "head" else widths[LEVEL_STAGE[level]]
            total += width * (self.stride // LEVEL_STRIDE[level]) ** 2
        return total

    def stage_widths(self) -> list[int]:
        factor = VARIANTS[self.variant][0]
        return [_round_width(width, factor) for *_, width in STAGES]

    def stage_repeats(self) -> list[int]:
        # The first and last stage are not deepened in the Lite family.
        factor, last = VARIANTS[self.variant][1], len(STAGES) - 1
        return [
            repeats if i in (0, last) else math.ceil(repeats * factor)
            for i, (repeats, *_) in enumerate(STAGES)
        ]

    def preprocess(self) -> Preprocess:
        # (x - 127) / 128 on 0..255, as the Lite models were trained.
        mean, std = 127 / 255, 128 / 255
        return Preprocess(self.size_px, (mean, mean, mean), (std, std, std), "bicubic")

    def grid(self) -> Grid:
        # 'SAME' convolutions halve and round up, five times for stride 32.
        side = math.ceil(self.size_px / self.stride)
        return Grid(side, side)

    def build(self, folder: Path | None = None) -> EfficientNetLite:
        tower = EfficientNetLite(self)
        if folder is not None:
            load_folder(tower, folder)
        return tower


class EfficientNetLite(nn.Module):
    """The tower; `blocks` are its trainable units in order."""

    in_pieces = True
    """Whether many pictures go through its blocks in several calls."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.config = config
        self.normalise = Normalise(config.preprocess())
        self.stem = ConvNorm(3, STEM_WIDTH, kernel=3, stride=2)
        blocks: list[nn.Module] = []
        self.stage_ends: list[int] = []
        width_in = STEM_WIDTH
        for (_, kernel, stride, expansion, _), width, repeats in zip(
            STAGES, config.stage_widths(), config.stage_repeats(), strict=True
        ):
            for i in range(repeats):
                step = stride if i == 0 else 1
                blocks.append(InvertedResidual(width_in, width, kernel, step, expansion))
                width_in = width
            self.stage_ends.append(len(blocks))
        self.blocks = nn.ModuleList(blocks)
        self.head = ConvNorm(width_in, HEAD_WIDTH, kernel=1)
        for module in self.modules():
            # With norms that keep their statistics, only this keeps a random tower's signal
            # from fading over fifty layers.
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def trainable_blocks(self) -> list[nn.Module]:
        """Units from input to output, for training only the last few."""
        return [self.stem, *self.blocks, self.head]

    def forward(self, pixels_NCHW: Tensor) -> Features:
        """(N, 3, S, S) uint8 -> features of the asked levels on the coarsest grid."""
        if pixels_NCHW.device.type == "cpu" and len(pixels_NCHW) > PIECE:
            pieces = [self._features(piece_NCHW) for piece_NCHW in pixels_NCHW.split(PIECE)]
            values_ND = torch.cat([piece.values_ND for piece in pieces])
            return Features(values_ND, tuple(grid for piece in pieces for grid in piece.grids))
        return self._features(pixels_NCHW)

    def _features(self, pixels_NCHW: Tensor) -> Features:
        # The layout in which a CPU's convolutions are fastest (benchmarks/tower_speed.py).
        x_NCHW = self.normalise(pixels_NCHW).contiguous(memory_format=torch.channels_last)
        x_NCHW = self.stem(x_NCHW)
        levels = self.config.levels
        wanted = {LEVEL_STAGE[level] for level in levels if level != "head"}
        kept: dict[int, Tensor] = {}
        ends = {end: stage for stage, end in enumerate(self.stage_ends)}
        for i, block in enumerate(self.blocks, start=1):
            x_NCHW = block(x_NCHW)
            if ends.get(i) in wanted:
                kept[ends[i]] = x_NCHW
        maps = [
            self.head(x_NCHW) if level == "head" else self._fold(kept[LEVEL_STAGE[level]], level)
            for level in levels
        ]
        merged_NDHW = torch.cat(maps, dim=1)
        height, width = merged_NDHW.shape[-2:]
        values_ND = merged_NDHW.flatten(2).transpose(1, 2).flatten(0, 1)
        return Features(values_ND, (Grid(height, width),) * len(pixels_NCHW))

    def _fold(self, map_NCHW: Tensor, level: Level) -> Tensor:
        factor = self.config.stride // LEVEL_STRIDE[level]
        if factor == 1:
            return map_NCHW
        height, width = map_NCHW.shape[-2:]
        padded = F.pad(map_NCHW, (0, -width % factor, 0, -height % factor))
        return F.pixel_unshuffle(padded, factor)


class ConvNorm(nn.Module):
    """Convolution with TensorFlow's 'SAME' padding, batch norm, ReLU6."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        *,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, kernel, stride, groups=groups, bias=False)
        self.norm = FrozenStatsNorm(width_out)
        self.act = act

    def forward(self, x_NCHW: Tensor) -> Tensor:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        rows = _same_padding(x_NCHW.shape[-2], kernel, stride)
        cols = _same_padding(x_NCHW.shape[-1], kernel, stride)
        even = rows[0] == rows[1] and cols[0] == cols[1]
        if not even:
            x_NCHW = F.pad(x_NCHW, (*cols, *rows))
        # The norm's statistics never change, so it is a scale and a shift of the kernel: one
        # pass over the map less, forward and backward.
        scale_C, shift_C = self.norm.scale_and_shift()
        x_NCHW = F.conv2d(
            x_NCHW,
            self.conv.weight * scale_C[:, None, None, None],
            shift_C,
            self.conv.stride,
            (rows[0], cols[0]) if even else 0,
            groups=self.conv.groups,
        )
        return F.relu6(x_NCHW) if self.act else x_NCHW


class FrozenStatsNorm(nn.BatchNorm2d):
    """Batch norm that always uses its stored statistics; scale and shift may learn."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=NORM_EPS)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of each channel: the whole norm, as its statistics are constants."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale_C = self.weight * (self.running_var + self.eps).rsqrt()
        return scale_C, self.bias - self.running_mean * scale_C

    def forward(self, input: Tensor) -> Tensor:
        scale_C, shift_C = self.scale_and_shift()
        return input * scale_C[:, None, None] + shift_C[:, None, None]


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, project; added to the input where shapes allow."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, ratio: int) -> None:
        super().__init__()
        inner = width_in * ratio
        self.expand = ConvNorm(width_in, inner, kernel=1) if ratio > 1 else None
        self.depthwise = ConvNorm(inner, inner, kernel=kernel, stride=stride, groups=inner)
        self.project = ConvNorm(inner, width_out, kernel=1, act=False)
        self.residual = stride == 1 and width_in == width_out

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW = x_NCHW if self.expand is None else self.expand(x_NCHW)
        y_NCHW = self.project(self.depthwise(y_NCHW))
        return x_NCHW + y_NCHW if self.residual else y_NCHW


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _round_width(width: int, factor: float) -> int:
    """Scale a width and round it to a multiple of 8, never by more than 10 % down."""
    if factor == 1.0:
        return width
    scaled = width * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded

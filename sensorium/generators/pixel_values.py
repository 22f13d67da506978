"""uint8 pixels <-> the values that picture tokenizers compute with, and the checks that all of them make.

Shape legend: B pictures, C colours, H/W pixels, N codes of a picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sensorium.core.batch import Grid
from sensorium.core.errors import ConfigError
from sensorium.core.hands import Making
from sensorium.core.picture_tokenizer import PictureTokenizerConfig

CENTRED = 2 / 255
"""Scale that makes 0..255 -1..1, to be shifted by -1."""


class PixelTokenizer(nn.Module):
    """What picture tokenizers share: a subclass has `encode_values` and `decode_values`, with values around -1..1."""

    def __init__(self, config: PictureTokenizerConfig) -> None:
        super().__init__()
        if config.size_px < config.stride or config.size_px % config.stride:
            raise ConfigError(
                f"size_px {config.size_px} with a stride of {config.stride}", expected="a multiple of the stride",
                where=f"picture tokenizer {config.kind}",
            )  # fmt: skip
        self.kind, self.size_px, self.codes = config.kind, config.size_px, config.codes
        self.stride, self.grid = config.stride, config.grid()

    def encode_values(self, values_BCHW: Tensor) -> Tensor:
        """Values -> ids_BN."""
        raise TypeError(f"{type(self).__name__} does not define encode_values()")

    def decode_values(self, ids_BN: Tensor, grid: Grid) -> Tensor:
        """Codes of this layout -> values (B, C, H, W), not yet clipped."""
        raise TypeError(f"{type(self).__name__} does not define decode_values()")

    def drawn_values(self, ids_BN: Tensor, grid: Grid, making: Making | None) -> Tensor:
        """`decode_values` as somebody asks for it, of what draws in steps."""
        del making
        return self.decode_values(ids_BN, grid)

    def to_values(self, pixels_BCHW: Tensor) -> Tensor:
        """0..255 -> -1..1."""
        return pixels_BCHW.float() * CENTRED - 1

    def to_pixels(self, values_BCHW: Tensor) -> Tensor:
        """-1..1, clipped -> uint8, to the nearest."""
        return ((values_BCHW.float() + 1) / CENTRED).round().clamp(0, 255).to(torch.uint8)

    @torch.no_grad()
    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        """See `PictureTokenizer.encode`."""
        shape, kind = tuple(pixels_BCHW.shape), pixels_BCHW.dtype
        if len(shape) != 4 or shape[1] != 3 or kind != torch.uint8:
            raise ConfigError(f"pixels of shape {shape} and type {kind}", expected="(B, 3, H, W), uint8", where=self._where)
        if not shape[2] or not shape[3] or shape[2] % self.stride or shape[3] % self.stride:
            raise ConfigError(
                f"pictures of {shape[2]} x {shape[3]} pixels", expected=f"sides that {self.stride} divides",
                where=self._where, fix=f"resize them, for example to {self.size_px} x {self.size_px}",
            )  # fmt: skip
        return self.encode_values(self.to_values(pixels_BCHW))

    @torch.no_grad()
    def decode(self, ids_BN: Tensor, grid: Grid | None = None, *, making: Making | None = None) -> Tensor:
        """See `PictureTokenizer.decode`."""
        grid = grid or self.grid
        if ids_BN.ndim != 2 or ids_BN.shape[1] != grid.tokens:
            raise ConfigError(
                f"ids of shape {tuple(ids_BN.shape)}", expected=f"(B, {grid.tokens}) for {grid.h} rows of {grid.w}",
                where=self._where,
            )  # fmt: skip
        low, high = (int(ids_BN.min()), int(ids_BN.max())) if ids_BN.numel() else (0, 0)
        if low < 0 or high >= self.codes:
            raise ConfigError(f"ids from {low} to {high}", expected=f"0 to {self.codes - 1}", where=self._where)
        return self.to_pixels(self.drawn_values(ids_BN, grid, making))

    @property
    def _where(self) -> str:
        return f"picture tokenizer {self.kind}"

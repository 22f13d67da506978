"""A small convolutional VQ tokenizer of our own, which trains on a processor.

After arXiv:1711.00937 and arXiv:2012.09841 (residual blocks with group norms), but without attention and without blocks at
full resolution, where most of the time would go.

Shape legend: B pictures, C colours, H/W pixels, D width, h/w codes of a column and row, N codes of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, cast

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Grid
from sensorium.core.errors import ConfigError
from sensorium.core.picture_tokenizer import PictureTokenizerConfig
from sensorium.generators.pixel_values import PixelTokenizer
from sensorium.nn.pretrained import load_folder, need_weights
from sensorium.nn.vector_quantise import QuantiseConfig, VectorQuantise

GROUPS = 8
"""Channels are normed in so many groups."""


class VqConfig(PictureTokenizerConfig):
    """Each of `widths` halves the picture's sides: three of them make a code stand for 8 x 8 pixels."""

    trains: ClassVar[bool] = True
    kind: Literal["vq"] = "vq"
    size_px: int = Field(default=64, ge=1)
    codes: int = Field(default=512, ge=1)
    code_width: int = Field(default=16, ge=1)
    widths: tuple[int, ...] = (32, 64, 128)
    blocks: int = Field(default=1, ge=0)
    """Residual blocks at each resolution, in the encoder and in the decoder; the coarsest has one more."""
    learns: Literal["ema", "loss"] = "ema"
    decay: float = 0.99
    beta: float = 0.25
    unit: bool = False
    revive_below: float = 0.2
    """These five: see `QuantiseConfig`."""

    @classmethod
    def tiny(cls) -> VqConfig:
        return cls(size_px=16, codes=16, code_width=4, widths=(8, 16), blocks=0)

    @property
    def stride(self) -> int:
        return 2 ** len(self.widths)

    def quantise(self) -> QuantiseConfig:
        """The codebook's own config."""
        return QuantiseConfig(
            codes=self.codes, width=self.code_width, learns=self.learns, decay=self.decay, beta=self.beta,
            unit=self.unit, revive_below=self.revive_below,
        )  # fmt: skip

    def fetch(self, path: str) -> str:
        return f"sensorium tokenizer train --out {path} makes one"

    def build(self, folder: Path | None = None) -> VqTokenizer:
        bad = [width for width in self.widths if width < 1 or width % GROUPS]
        if bad or not self.widths:
            raise ConfigError(f"widths {list(self.widths)}", expected=f"one or more multiples of {GROUPS}",
                              where="picture tokenizer vq")  # fmt: skip
        tokenizer = VqTokenizer(self)
        if folder is not None:
            need_weights(folder, self.fetch(str(folder)))
            load_folder(tokenizer, folder, self.fetch(str(folder)))
        return tokenizer.eval()


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What training looks at."""

    values_BCHW: Tensor
    ids_BN: Tensor
    loss: Tensor
    """Of the codebook."""
    last: Tensor
    """Weights of the layer that made the values."""


class VqTokenizer(PixelTokenizer):
    """Encoder, codebook, decoder."""

    def __init__(self, config: VqConfig) -> None:
        super().__init__(config)
        self.config = config
        self.encoder = _encoder(config)
        self.quantise = VectorQuantise(config.quantise())
        self.decoder = _decoder(config)

    def forward(self, values_BCHW: Tensor) -> Reconstruction:
        """There and back, with gradients."""
        z_BDhw = self.encoder(values_BCHW)
        B, D, h, w = z_BDhw.shape
        quantised = self.quantise(_rows(z_BDhw))
        codes_BDhw = quantised.values_ND.view(B, h, w, D).permute(0, 3, 1, 2)
        last = cast(nn.Conv2d, self.decoder[-1]).weight
        return Reconstruction(self.decoder(codes_BDhw), quantised.ids_N.view(B, h * w), quantised.loss, last)

    def encode_values(self, values_BCHW: Tensor) -> Tensor:
        return self.quantise.nearest(_rows(self.encoder(values_BCHW))).view(len(values_BCHW), -1)

    def decode_values(self, ids_BN: Tensor, grid: Grid) -> Tensor:
        codes_BNd = self.quantise.lookup(ids_BN)
        return self.decoder(codes_BNd.transpose(1, 2).unflatten(2, (grid.h, grid.w)))


def _rows(z_BDhw: Tensor) -> Tensor:
    """One vector a code, pictures one after another, in reading order."""
    return z_BDhw.permute(0, 2, 3, 1).flatten(0, 2)


def _encoder(config: VqConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = 3
    for width in config.widths:
        layers.append(nn.Conv2d(before, width, 4, stride=2, padding=1))
        layers += [ResidualBlock(width) for _ in range(config.blocks)]
        before = width
    return nn.Sequential(*layers, ResidualBlock(before), *_head(before, config.code_width, kernel=1))


def _decoder(config: VqConfig) -> nn.Sequential:
    before = config.widths[-1]
    layers: list[nn.Module] = [nn.Conv2d(config.code_width, before, 1), ResidualBlock(before)]
    # The finest width goes up to full resolution, where only the last convolution runs.
    for width in reversed((config.widths[0], *config.widths[:-1])):
        layers += [ResidualBlock(before) for _ in range(config.blocks)]
        layers.append(Doubled(before, width))
        before = width
    return nn.Sequential(*layers, *_head(before, 3, kernel=3))


def _head(width: int, out: int, kernel: int) -> list[nn.Module]:
    return [nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, out, kernel, padding=kernel // 2)]


class ResidualBlock(nn.Module):
    """Twice norm, SiLU and 3 x 3 convolution, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*_head(width, width, kernel=3))
        self.second = nn.Sequential(*_head(width, width, kernel=3))

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return x_BDHW + self.second(self.first(x_BDHW))


class Doubled(nn.Module):
    """Twice the sides: a convolution at the coarse resolution makes the four values of each 2 x 2 (arXiv:1609.05158)."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, 4 * width_out, 3, padding=1)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x_BDHW), 2)

"""How well a picture tokenizer gives pictures back, and a sheet to look at.

Shape legend: N pictures, B of a batch, C colours, H/W pixels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor

from sensorium.core.atomic import atomic_path
from sensorium.core.errors import DataError
from sensorium.core.picture_tokenizer import PictureTokenizer
from sensorium.nn.vector_quantise import code_use

BATCH = 32
SHEET_COLUMNS, SHEET_ROWS = 8, 4


@dataclass(frozen=True, slots=True)
class ReconstructionReport:
    """Means over pictures."""

    pictures: int
    psnr_db: float
    """Of each picture's mean squared error over pixels and colours, at a peak of 255; no picture counts more than 100."""
    l1: float
    """Mean absolute difference, of 255 = 1."""
    codes_used: float
    perplexity: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def psnr_db(made_NCHW: Tensor, wanted_NCHW: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (N,) of uint8 pictures, in decibels, 100 at most."""
    error_N = (made_NCHW.double() - wanted_NCHW.double()).square().flatten(1).mean(1)
    return (10 * torch.log10(255**2 / error_N)).clamp(max=100)


def reconstruct(tokenizer: PictureTokenizer, pixels_NCHW: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Pictures there and back: ids and uint8 pixels, in batches on the tokenizer's device."""
    if not len(pixels_NCHW):
        raise DataError("no pictures to give back")
    ids = [tokenizer.encode(batch_BCHW.to(device)) for batch_BCHW in pixels_NCHW.split(BATCH)]
    return torch.cat(ids).cpu(), torch.cat([tokenizer.decode(one).cpu() for one in ids])


def measure(tokenizer: PictureTokenizer, ids_NL: Tensor, made_NCHW: Tensor, wanted_NCHW: Tensor) -> ReconstructionReport:
    """Scores of what `reconstruct` gave."""
    use = code_use(ids_NL, tokenizer.codes)
    l1 = (made_NCHW.double() - wanted_NCHW.double()).abs().mean() / 255
    return ReconstructionReport(len(made_NCHW), float(psnr_db(made_NCHW, wanted_NCHW).mean()), float(l1), use.used, use.perplexity)


def write_sheet(path: Path, wanted_NCHW: Tensor, made_NCHW: Tensor) -> None:
    """A PNG of the first pictures in rows of eight, each row of originals above its reconstructions."""
    bands: list[Tensor] = []
    count = min(len(wanted_NCHW), SHEET_COLUMNS * SHEET_ROWS)
    for start in range(0, count, SHEET_COLUMNS):
        for pictures_NCHW in (wanted_NCHW, made_NCHW):
            row = list(pictures_NCHW[start : min(start + SHEET_COLUMNS, count)])
            row += [torch.full_like(row[0], 255)] * (min(count, SHEET_COLUMNS) - len(row))
            bands.append(torch.cat(row, dim=2))
    sheet_HWC = torch.cat(bands, dim=1).permute(1, 2, 0).contiguous().numpy()
    with atomic_path(path) as temporary:
        PILImage.fromarray(sheet_HWC).save(temporary, format="PNG")

"""Pictures for a picture tokenizer: a folder's, or picture-book's, as square uint8 pixels in memory.

Shape legend: N pictures, C colours, H/W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sensorium.core.batch import Preprocess, TilePlan
from sensorium.core.errors import DataError
from sensorium.core.hashing import stable_int
from sensorium.core.progress import progress
from sensorium.data.picture_book.build import read_entries
from sensorium.data.picture_book.place import book_folder
from sensorium.media.image import load_image
from sensorium.media.resolution import FixedResolution

BOOK = "picture-book"
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"))
HELD_OUT = 0.1
"""Share of a folder's pictures that is kept for reports."""


def picture_files(source: str, split: str) -> list[Path]:
    """Files of one split, `train` or `heldout`, sorted.

    Args:
        source: a folder, looked through with all below it and split by a hash of each picture's name; or `picture-book`,
            the built one if there is one, else the part that ships, with its own split.

    Raises:
        DataError: there is none.
    """
    if source == BOOK:
        folder = book_folder("best")
        return [folder / row["image"] for row in read_entries(folder) if row["split"] == split]
    folder = Path(source)
    if not folder.is_dir():
        raise DataError("no such folder", where=source, fix=f"give a folder of pictures, or {BOOK}")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    held = {p for p in files if stable_int("tokenizer", str(p.relative_to(folder).as_posix())) % 1000 < 1000 * HELD_OUT}
    chosen = [p for p in files if (p in held) == (split == "heldout")]
    if not chosen:
        raise DataError(f"no pictures for {split} among {len(files)}", where=source, fix="give a folder with more pictures")
    return chosen


def read_pixels(files: Sequence[Path], size_px: int) -> Tensor:
    """(N, 3, size, size) uint8, each picture whole on white.

    Raises:
        MediaError: a picture is damaged; names it.
    """
    fit, half = FixedResolution(), (0.5, 0.5, 0.5)
    preprocess = Preprocess(size_px, half, half, "lanczos")
    pixels_NHWC = np.empty((len(files), size_px, size_px, 3), dtype=np.uint8)
    with progress("reading pictures", len(files)) as meter:
        for i, file in enumerate(files):
            pixels_NHWC[i] = fit.cut(load_image(file), TilePlan(), preprocess)[0]
            meter.update(i + 1)
    return torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2).contiguous()

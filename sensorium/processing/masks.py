"""Mask parts of a Sample -> masks of the pictures that they are said of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium.core.batch import Seen, Wanted
from sensorium.core.boxes import View
from sensorium.core.config import as_mapping
from sensorium.core.errors import DataError
from sensorium.core.masks import Mask, read_mask
from sensorium.core.naming import did_you_mean
from sensorium.core.sample import Part
from sensorium.media.image import load_image
from sensorium.media.limits import ImageLimits
from sensorium.media.masks import load_mask
from sensorium.processing.places import picture_of

RUNS = ("size", "counts")
KEYS = (*RUNS, "png", "phrase", "picture")


@dataclass(frozen=True, slots=True)
class PlacedMask:
    """A mask in pixels of its picture, the first of which has number 1, and where that lies in its frame."""

    mask: Mask
    phrase: str | None
    picture: int
    view: View

    def in_frame(self) -> Mask:
        """What the picture's frame shows of it, in the frame's pixels."""
        return self.mask.forward(self.view)


def place_mask(
    part: Part, pictures: Sequence[Seen], *, root: Path | None = None, limits: ImageLimits | None = None
) -> PlacedMask:
    """What a part with a mask means.

    Args:
        pictures: those in front of the part, in reading order.
        root: folder that relative paths of PNG files start from.

    Raises:
        DataError: the part is malformed, there is no such picture, or the mask has another size than it.
    """
    row = as_mapping(part.value)
    if row is None:
        row = {"png": part.value}
    for key in row:
        if key not in KEYS:
            raise DataError(f"unknown key {key!r}", where=part.type, fix=did_you_mean(str(key), KEYS))
    if ("png" in row) == any(key in row for key in RUNS):
        raise DataError("a mask with run lengths and a PNG, or without both", where=part.type,
                        expected='"size" and "counts", or "png"')  # fmt: skip
    phrase = row.get("phrase")
    if phrase is not None and not isinstance(phrase, str):
        raise DataError(f"phrase is {phrase!r}", expected="a string", where=part.type)
    number = row.get("picture", len(pictures))
    seen = picture_of(number, pictures, part.type)
    mask = _load(row["png"], root, limits) if "png" in row else read_mask(row, part.type)
    shape = seen.shape
    if mask.size != (shape.height_px, shape.width_px):
        raise DataError(
            f"a mask of {mask.width}x{mask.height} pixels for a picture of {shape.width_px}x{shape.height_px}",
            expected="masks of the whole picture at its own size, upright", where=part.type,
            fix="scale the mask to the picture, or skip such rows with on_bad_row: skip",
        )  # fmt: skip
    return PlacedMask(mask, phrase, number, seen.view)


def mask_part(mask: Mask, *, phrase: str | None = None, picture: int | None = None) -> Part:
    """The part of a Sample, in plain JSON values, that `place_mask` reads back."""
    said = {"phrase": phrase, "picture": picture}
    return Part("mask", mask.to_json() | {key: value for key, value in said.items() if value is not None})


def picture_pixels(wanted: Wanted, limits: ImageLimits | None = None) -> NDArray[np.uint8]:
    """The picture (H, W, 3) that a mask of an answer lies in, as it was read and not as the encoder sees it.

    Raises:
        MediaError: it cannot be read any more.
    """
    return load_image(wanted.picture, root=wanted.root, limits=limits).pixels_HWC


def _load(source: Any, root: Path | None, limits: ImageLimits | None) -> Mask:
    """In memory a mask may also be one, or an array."""
    if isinstance(source, Mask):
        return source
    if isinstance(source, np.ndarray):
        return Mask.from_array(source)
    return load_mask(source, root=root, limits=limits)

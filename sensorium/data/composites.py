"""Composites: cut-outs of named pictures pasted on a ground, so that it is known where each thing is.

The alpha channel of a cut-out is the true mask of its thing; what a later cut-out covers is taken
off again. A composite is a pure function of (cut-outs, seed, index).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from sensorium.core.boxes import Box
from sensorium.core.errors import DataError
from sensorium.core.hashing import stable_int
from sensorium.data.grounds import draw_ground

# Mostly squares; (width, height) in pixels.
SIZES = ((256, 256), (256, 256), (256, 192), (192, 256))
MAX_THINGS = 5
# Longest side of a cut-out as a share of the canvas's shorter side, by how many there are.
REACH = {1: (0.3, 0.85), 2: (0.28, 0.62), 3: (0.24, 0.5), 4: (0.22, 0.42), 5: (0.22, 0.4)}
# Of the smaller of two boxes; beyond it one thing would hide another.
MAX_OVERLAP = 0.1
OPAQUE = 128
# A cut-out that fills its own box is a picture with a frame, not a thing; one with less is scribble.
FILLED = (0.08, 0.97)
MIN_SIDE_PX = 20
TRIES = 60
SIDES = {"left", "right"}


@dataclass(frozen=True, slots=True)
class Cutout:
    """A named picture whose alpha channel is its mask."""

    entry: dict[str, Any]
    file: Path

    def read(self) -> PILImage.Image | None:
        """RGBA pixels cropped to what is opaque; None where the picture is no cut-out."""
        with PILImage.open(self.file, formats=("WEBP", "PNG")) as picture:
            if picture.mode not in ("RGBA", "LA", "PA"):
                return None
            rgba = picture.convert("RGBA")
        opaque = np.asarray(rgba.getchannel("A")) >= OPAQUE
        box = PILImage.fromarray(opaque).getbbox()
        if box is None or min(box[2] - box[0], box[3] - box[1]) < 8:
            return None
        left, top, right, bottom = box
        share = float(opaque[top:bottom, left:right].mean())
        return rgba.crop(box) if FILLED[0] <= share <= FILLED[1] else None


@dataclass(frozen=True, slots=True)
class Pasted:
    """A thing in a composite: its entry, the box of what is seen of it in pixels, and its mask."""

    entry: dict[str, Any]
    box: Box
    mask_HW: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Composite:
    """An RGB picture and its things, in the order in which they were pasted."""

    picture: PILImage.Image
    things: tuple[Pasted, ...]


def name_words(entry: dict[str, Any]) -> frozenset[str]:
    """All words of all names that are right for a picture."""
    return frozenset(word for name in (entry["name"], *entry["accepted"]) for word in name.split())


def make_composite(cutouts: Sequence[Cutout], seed: int, index: int) -> Composite:
    """One to five cut-outs, no two of which share a word of their names, on a ground.

    Raises:
        DataError: none of the pictures is a cut-out.
    """
    rng = random.Random(stable_int("composite", seed, index))
    width, height = rng.choice(SIZES)
    wanted = rng.randint(1, MAX_THINGS)
    canvas = draw_ground(rng, width, height)
    taken: list[tuple[Cutout, PILImage.Image, tuple[int, int]]] = []
    words: set[str] = set()
    for _ in range(TRIES):
        if len(taken) == wanted:
            break
        cutout = cutouts[rng.randrange(len(cutouts))]
        pixels = None if words & name_words(cutout.entry) else cutout.read()
        if pixels is None:
            continue
        if rng.random() < 0.5 and not SIDES & name_words(cutout.entry):
            pixels = pixels.transpose(PILImage.Transpose.FLIP_LEFT_RIGHT)
        placed = _place(pixels, [(p.size, at) for _, p, at in taken], wanted, canvas.size, rng)
        if placed is not None:
            taken.append((cutout, *placed))
            words |= name_words(cutout.entry)
    return _paste(canvas, taken)


def _place(
    pixels: PILImage.Image, others: Sequence[tuple[tuple[int, int], tuple[int, int]]], wanted: int,
    canvas: tuple[int, int], rng: random.Random,
) -> tuple[PILImage.Image, tuple[int, int]] | None:  # fmt: skip
    """The cut-out in its size and where its corner lies; None: there is no room."""
    low, high = REACH[wanted]
    for _ in range(8):
        scale = rng.uniform(low, high) * min(canvas) / max(pixels.size)
        size = max(1, round(pixels.width * scale)), max(1, round(pixels.height * scale))
        at = rng.randint(0, canvas[0] - size[0]), rng.randint(0, canvas[1] - size[1])
        if min(size) >= MIN_SIDE_PX and all(_overlap(size, at, *o) <= MAX_OVERLAP for o in others):
            return pixels.resize(size, PILImage.Resampling.LANCZOS), at
    return None


def _overlap(
    size: tuple[int, int], at: tuple[int, int], other: tuple[int, int], other_at: tuple[int, int]
) -> float:
    """What two boxes share, as a part of the smaller one."""
    sides = (min(at[k] + size[k], other_at[k] + other[k]) - max(at[k], other_at[k]) for k in (0, 1))
    width, height = (max(0, side) for side in sides)
    return width * height / min(size[0] * size[1], other[0] * other[1])


def _paste(
    canvas: PILImage.Image, taken: Sequence[tuple[Cutout, PILImage.Image, tuple[int, int]]]
) -> Composite:
    masks: list[NDArray[np.bool_]] = []
    for _, pixels, at in taken:
        canvas.paste(pixels, at, pixels.getchannel("A"))
        mask_HW = np.zeros((canvas.height, canvas.width), dtype=np.bool_)
        alpha = np.asarray(pixels.getchannel("A")) >= OPAQUE
        mask_HW[at[1] : at[1] + pixels.height, at[0] : at[0] + pixels.width] = alpha
        for below in masks:
            below &= ~mask_HW
        masks.append(mask_HW)
    things = [
        Pasted(cutout.entry, Box(*map(float, box)), mask_HW)
        for (cutout, *_), mask_HW in zip(taken, masks, strict=True)
        if (box := PILImage.fromarray(mask_HW).getbbox()) is not None
    ]
    if not things:
        raise DataError("no cut-out could be placed", expected="pictures with transparency around a thing",
                        fix="choose a part with cut-outs: full, drawings or shipped")  # fmt: skip
    return Composite(canvas, tuple(things))

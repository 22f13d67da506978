"""Grounds to paste things on: plain, a gradient, or a texture."""

from __future__ import annotations

import colorsys
import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

Colour = tuple[float, float, float]


def draw_ground(rng: random.Random, width: int, height: int) -> PILImage.Image:
    """An RGB picture without things; pale more often than not, because many drawings are dark lines."""
    kind = rng.choice(("plain", "plain", "gradient", "cloud", "stripes", "checks"))
    first, second = _colour(rng), _colour(rng)
    if kind == "plain":
        return PILImage.new("RGB", (width, height), _bytes(first))
    weight_HW = WEIGHTS[kind](rng, width, height)
    if kind != "gradient":
        # Two colours of one texture lie close together, or things would be lost in it.
        share = rng.uniform(0.15, 0.5)
        second = tuple((1 - share) * a + share * b for a, b in zip(first, second, strict=True))
    colours = np.asarray(first) + weight_HW[..., None] * (np.asarray(second) - np.asarray(first))
    return PILImage.fromarray(np.rint(colours * 255).clip(0, 255).astype(np.uint8), "RGB")


def _colour(rng: random.Random) -> Colour:
    if rng.random() < 0.3:
        return (1.0, 1.0, 1.0)
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.5), rng.uniform(0.5, 1.0))


def _bytes(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue


def _gradient(rng: random.Random, width: int, height: int) -> NDArray[np.float64]:
    """From 0 to 1 in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y_HW, x_HW = np.mgrid[0:height, 0:width]
    along = x_HW * np.cos(angle) + y_HW * np.sin(angle)
    return (along - along.min()) / max(1e-9, float(along.max() - along.min()))


def _cloud(rng: random.Random, width: int, height: int) -> NDArray[np.float64]:
    """Smooth noise."""
    cells = rng.randint(3, 24)
    noise = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (cells, cells), dtype=np.uint8)
    picture = PILImage.fromarray(noise).resize((width, height), PILImage.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.float64) / 255


def _stripes(rng: random.Random, width: int, height: int) -> NDArray[np.float64]:
    phase = _gradient(rng, width, height) * rng.randint(3, 14)
    return (phase % 1.0 < 0.5).astype(np.float64)


def _checks(rng: random.Random, width: int, height: int) -> NDArray[np.float64]:
    side = rng.randint(10, 48)
    y_HW, x_HW = np.mgrid[0:height, 0:width] // side
    return ((x_HW + y_HW) % 2).astype(np.float64)


WEIGHTS = {"gradient": _gradient, "cloud": _cloud, "stripes": _stripes, "checks": _checks}

"""Light, label-preserving picture augmentation, driven by an explicit generator.

Left and right are swapped only where the data allows it, so that answers stay true.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage
from PIL import ImageEnhance, ImageOps

from sensorium.core.batch import MediaShape
from sensorium.core.hashing import stable_int
from sensorium.media.image import WHITE, Image


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How one picture is changed: a generator, and whether it may be mirrored."""

    rng: random.Random
    mirror: bool = False
    seed: int | None = None
    """Of one of few views: what `rng` was seeded with, by which a feature store knows the view."""

    def of_picture(self, number: int) -> Augmentation:
        """The one of a Sample's picture, counted from 0. A view of each picture is drawn by itself, so that
        it does not matter whether the pictures in front were decoded."""
        if self.seed is None:
            return self
        seed = stable_int("picture", self.seed, number) if number else self.seed
        return Augmentation(random.Random(seed), self.mirror, seed)


def random_background(rng: random.Random) -> tuple[int, int, int]:
    """White half of the time, otherwise any light or dark colour."""
    if rng.random() < 0.5:
        return WHITE
    return (rng.randrange(256), rng.randrange(256), rng.randrange(256))


@dataclass(frozen=True, slots=True)
class _Change:
    """What was drawn for one picture; it depends on its size, not on its pixels."""

    kept: tuple[int, int, int, int] | None
    """Left, top, right, bottom of what is left of it; None: all."""
    canvas: tuple[int, int, int, int] | None
    """Width and height of a canvas, and its corner on that; None: no canvas."""
    mirrored: bool
    light: tuple[float | None, float | None, float | None]
    """Factors of brightness, contrast and colour; None: as it is."""


def augment_image(image: Image, augmentation: Augmentation, *, still: bool = False) -> Image:
    """Shift, scale, squeeze, and change light and colour a little.

    The picture is placed on a canvas up to 1.5 times its size or cropped by up to 15 % a
    side; brightness, contrast and saturation change by up to 30 %.

    Args:
        still: everything stays where it is, because the Sample says where that is.
    """
    change = _draw(image.shape, augmentation, still)
    picture = image.to_pil()
    if change.kept is not None:
        picture = picture.crop(change.kept)
    if change.canvas is not None:
        edge = picture.getpixel((0, 0))
        canvas = PILImage.new("RGB", change.canvas[:2], edge)  # pyright: ignore[reportArgumentType]
        canvas.paste(picture, change.canvas[2:])
        picture = canvas
    if change.mirrored:
        picture = ImageOps.mirror(picture)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for enhancer, factor in zip(enhancers, change.light, strict=True):
        if factor is not None:
            picture = enhancer(picture).enhance(factor)
    return Image(np.asarray(picture, dtype=np.uint8).copy())


def augmented_shape(shape: MediaShape, augmentation: Augmentation, *, still: bool = False) -> MediaShape:
    """The size that `augment_image` would give; the generator moves on as it would there."""
    change = _draw(shape, augmentation, still)
    if change.kept is not None:
        left, top, right, bottom = change.kept
        return MediaShape(height_px=bottom - top, width_px=right - left)
    if change.canvas is not None:
        return MediaShape(height_px=change.canvas[1], width_px=change.canvas[0])
    return shape


def _draw(shape: MediaShape, augmentation: Augmentation, still: bool) -> _Change:
    rng, kept, canvas, mirrored = augmentation.rng, None, None, False
    width, height = shape.width_px, shape.height_px
    if not still:
        if min(width, height) >= 16:
            if rng.random() < 0.5:
                left, right = rng.uniform(0, 0.15) * width, rng.uniform(0, 0.15) * width
                top, bottom = rng.uniform(0, 0.15) * height, rng.uniform(0, 0.15) * height
                kept = (int(left), int(top), int(width - right), int(height - bottom))
            else:
                grown = (int(width * rng.uniform(1.0, 1.5)), int(height * rng.uniform(1.0, 1.5)))
                canvas = (*grown, rng.randint(0, grown[0] - width), rng.randint(0, grown[1] - height))
        mirrored = augmentation.mirror and rng.random() < 0.5
    first, second, third = (rng.uniform(0.7, 1.3) if rng.random() < 0.4 else None for _ in range(3))
    return _Change(kept, canvas, mirrored, (first, second, third))

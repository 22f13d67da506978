"""Light, label-preserving picture augmentation, driven by an explicit generator.

Left and right are swapped only where the data allows it, so that answers stay true.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage
from PIL import ImageEnhance, ImageOps

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
        return Augmentation(random.Random(seed), self.mirror, self.seed)


def random_background(rng: random.Random) -> tuple[int, int, int]:
    """White half of the time, otherwise any light or dark colour."""
    if rng.random() < 0.5:
        return WHITE
    return (rng.randrange(256), rng.randrange(256), rng.randrange(256))


def augment_image(image: Image, augmentation: Augmentation, *, still: bool = False) -> Image:
    """Shift, scale, squeeze, and change light and colour a little.

    The picture is placed on a canvas up to 1.5 times its size or cropped by up to 15 % a
    side; brightness, contrast and saturation change by up to 30 %.

    Args:
        still: everything stays where it is, because the Sample says where that is.
    """
    rng = augmentation.rng
    picture = image.to_pil()
    if not still:
        picture = _reframe(picture, rng)
        if augmentation.mirror and rng.random() < 0.5:
            picture = ImageOps.mirror(picture)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        if rng.random() < 0.4:
            picture = enhancer(picture).enhance(rng.uniform(0.7, 1.3))
    return Image(np.asarray(picture, dtype=np.uint8).copy())


def _reframe(picture: PILImage.Image, rng: random.Random) -> PILImage.Image:
    width, height = picture.size
    if min(width, height) < 16:
        return picture
    if rng.random() < 0.5:
        left, right = rng.uniform(0, 0.15) * width, rng.uniform(0, 0.15) * width
        top, bottom = rng.uniform(0, 0.15) * height, rng.uniform(0, 0.15) * height
        return picture.crop((int(left), int(top), int(width - right), int(height - bottom)))
    edge = picture.getpixel((0, 0))
    grown = (int(width * rng.uniform(1.0, 1.5)), int(height * rng.uniform(1.0, 1.5)))
    canvas = PILImage.new("RGB", grown, edge)  # pyright: ignore[reportArgumentType]
    spot = (rng.randint(0, grown[0] - width), rng.randint(0, grown[1] - height))
    canvas.paste(picture, spot)
    return canvas

"""One encoder input of one size from a picture of any shape, and the ways to fit it."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from sensorium.core.batch import Grid, MediaShape, Preprocess, TilePlan
from sensorium.core.boxes import View
from sensorium.core.parts import ResolutionConfig
from sensorium.media.boxes import (
    VIEWS,
    Corner,
    corner,
    cover_size,
    crop_box,
    letterbox_size,
    middle,
)
from sensorium.media.image import WHITE, Image

RESAMPLING = {
    "nearest": PILImage.Resampling.NEAREST,
    "bilinear": PILImage.Resampling.BILINEAR,
    "bicubic": PILImage.Resampling.BICUBIC,
    "lanczos": PILImage.Resampling.LANCZOS,
}

# Times the size of what is kept of it.
LARGEST_COVER = 16


class FixedResolution(ResolutionConfig):
    """One input of the encoder's own size.

    `letterbox` keeps the whole picture and its proportions and pads with white; `stretch`
    distorts; `crop` resizes the short side and takes the middle (CLIP's own habit); `middle` does so, too, but where
    half a pixel is left it rounds as torchvision does (ImageBind).
    """

    kind: Literal["fixed"] = "fixed"
    fit: Literal["letterbox", "stretch", "crop", "middle"] = "letterbox"

    @classmethod
    def tiny(cls) -> FixedResolution:
        return cls()

    def plan(self, shape: MediaShape, size_px: int, tile: Grid, pictures: int = 1) -> TilePlan:
        return TilePlan()

    def cut(self, image: Image, plan: TilePlan, preprocess: Preprocess) -> NDArray[np.uint8]:
        size_px = preprocess.size_px
        fitted = FIT[self.fit](image, size_px, size_px, preprocess.interpolation)
        return np.asarray(fitted, dtype=np.uint8)[None].copy()

    def views(self, shape: MediaShape, plan: TilePlan, size_px: int) -> tuple[View, ...]:
        return (self.frame(shape, plan, size_px),)

    def frame(self, shape: MediaShape, plan: TilePlan, size_px: int) -> View:
        return VIEWS[self.fit](shape, size_px, size_px)


def letterbox(image: Image, height: int, width: int, interpolation: str) -> PILImage.Image:
    """The whole picture, in proportion, centred on a white canvas."""
    inner = letterbox_size(image.shape, height, width)
    resized = image.resized(*inner, RESAMPLING[interpolation])
    canvas = PILImage.new("RGB", (width, height), WHITE)
    canvas.paste(resized, corner(inner, height, width))
    return canvas


def stretch(image: Image, height: int, width: int, interpolation: str) -> PILImage.Image:
    """The picture distorted to the asked size."""
    return image.resized(height, width, RESAMPLING[interpolation])


def crop(image: Image, height: int, width: int, interpolation: str, at: Corner = corner) -> PILImage.Image:
    """The middle of the picture after its short side has been resized."""
    scaled = cover_size(image.shape, height, width)
    if scaled[0] * scaled[1] <= LARGEST_COVER * height * width:
        left, top = at((height, width), *scaled)
        whole = image.resized(*scaled, RESAMPLING[interpolation])
        return whole.crop((left, top, left + width, top + height))
    # Of a 20,000 x 3 strip the box is cut while resizing, so that it never becomes a huge canvas: along
    # rows first, as Pillow does with the whole. In one go it may begin with columns, which rounds otherwise.
    picture = image.to_pil()
    left, top, right, bottom = crop_box(image.shape, height, width, at)
    method = RESAMPLING[interpolation]
    narrow = picture.resize((width, picture.height), method, box=(left, 0, right, picture.height))
    return narrow.resize((width, height), method, box=(0, top, width, bottom))


FIT = {"letterbox": letterbox, "stretch": stretch, "crop": crop, "middle": partial(crop, at=middle)}

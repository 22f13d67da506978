"""One encoder input of one size from a picture of any shape, and the ways to fit it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from sensorium.core.batch import Grid, MediaShape, Preprocess, TilePlan
from sensorium.core.parts import ResolutionConfig
from sensorium.media.image import WHITE, Image

RESAMPLING = {
    "nearest": PILImage.Resampling.NEAREST,
    "bilinear": PILImage.Resampling.BILINEAR,
    "bicubic": PILImage.Resampling.BICUBIC,
    "lanczos": PILImage.Resampling.LANCZOS,
}


class FixedResolution(ResolutionConfig):
    """One input of the encoder's own size.

    `letterbox` keeps the whole picture and its proportions and pads with white; `stretch`
    distorts; `crop` resizes the short side and takes the middle (CLIP's own habit).
    """

    kind: Literal["fixed"] = "fixed"
    fit: Literal["letterbox", "stretch", "crop"] = "letterbox"

    @classmethod
    def tiny(cls) -> FixedResolution:
        return cls()

    def plan(self, shape: MediaShape, size_px: int, tile: Grid, pictures: int = 1) -> TilePlan:
        return TilePlan()

    def cut(self, image: Image, plan: TilePlan, preprocess: Preprocess) -> NDArray[np.uint8]:
        size_px = preprocess.size_px
        fitted = FIT[self.fit](image.to_pil(), size_px, size_px, preprocess.interpolation)
        return np.asarray(fitted, dtype=np.uint8)[None].copy()


def letterbox(
    picture: PILImage.Image, height: int, width: int, interpolation: str
) -> PILImage.Image:
    """The whole picture, in proportion, centred on a white canvas."""
    shape = MediaShape(height_px=picture.height, width_px=picture.width)
    scale = min(width / picture.width, height / picture.height)
    new_height, new_width = _scaled(shape, scale)
    new_height, new_width = min(new_height, height), min(new_width, width)
    resized = picture.resize((new_width, new_height), RESAMPLING[interpolation])
    canvas = PILImage.new("RGB", (width, height), WHITE)
    canvas.paste(resized, ((width - new_width) // 2, (height - new_height) // 2))
    return canvas


def stretch(picture: PILImage.Image, height: int, width: int, interpolation: str) -> PILImage.Image:
    """The picture distorted to the asked size."""
    return picture.resize((width, height), RESAMPLING[interpolation])


def crop(picture: PILImage.Image, height: int, width: int, interpolation: str) -> PILImage.Image:
    """The middle of the picture after its short side has been resized."""
    scale = max(width / picture.width, height / picture.height)
    new_width = max(width, round(picture.width * scale))
    new_height = max(height, round(picture.height * scale))
    # The box is cut before resizing, so that a 20,000 x 3 strip never becomes a huge canvas.
    box_w, box_h = picture.width * width / new_width, picture.height * height / new_height
    left, top = (picture.width - box_w) / 2, (picture.height - box_h) / 2
    box = (left, top, left + box_w, top + box_h)
    return picture.resize((width, height), RESAMPLING[interpolation], box=box)


def _scaled(shape: MediaShape, scale: float) -> tuple[int, int]:
    return max(1, round(shape.height_px * scale)), max(1, round(shape.width_px * scale))


FIT = {"letterbox": letterbox, "stretch": stretch, "crop": crop}

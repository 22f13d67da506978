"""Pictures at about their own size and proportions, cut into patches (Qwen2-VL, arXiv:2409.12191).

The rule for the size is `smart_resize` of github.com/QwenLM/Qwen2-VL (qwen-vl-utils).
"""

from __future__ import annotations

import math
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from sensorium.core.batch import Grid, MediaShape, Preprocess, TilePlan
from sensorium.core.boxes import View
from sensorium.core.errors import DataError
from sensorium.core.parts import ResolutionConfig
from sensorium.media.boxes import stretched
from sensorium.media.image import Image
from sensorium.media.resolution import stretch

LONGEST = 200
"""Times its short side that a picture may be long, as in the original."""


class NativeResolution(ResolutionConfig):
    """Both sides to the nearest multiple of `patch_px * merge`, and smaller or larger in proportion
    where the picture has more or fewer pixels than allowed."""

    kind: Literal["native"] = "native"
    patch_px: int = Field(default=14, ge=1)
    """Side of a patch; the encoder's."""
    merge: int = Field(default=2, ge=1)
    """Both numbers of patches are multiples of this, for projectors that merge neighbours."""
    min_pixels: int = Field(default=56 * 56, ge=1)
    max_pixels: int = 28 * 28 * 1280

    @model_validator(mode="after")
    def _room_for_one(self) -> Self:
        if self.max_pixels < max(self.min_pixels, self.multiple_px**2):
            raise ValueError(
                f"max_pixels {self.max_pixels} with min_pixels {self.min_pixels} and sides that are "
                f"multiples of {self.multiple_px}: raise it to {max(self.min_pixels, self.multiple_px**2)}"
            )
        return self

    @classmethod
    def tiny(cls) -> NativeResolution:
        return cls(patch_px=8, min_pixels=16 * 16, max_pixels=64 * 64)

    @property
    def multiple_px(self) -> int:
        return self.patch_px * self.merge

    def size(self, shape: MediaShape) -> tuple[int, int]:
        """Height and width that a picture is resized to.

        Raises:
            DataError: it is more than 200 times as long as it is short.
        """
        height, width, multiple = shape.height_px, shape.width_px, self.multiple_px
        if max(height, width) > LONGEST * min(height, width):
            raise DataError(
                f"a picture of {width}x{height} pixels",
                expected=f"at most {LONGEST} times as long as it is short",
                fix="crop it, or skip such rows with on_bad_row: skip",
            )
        rows, cols = round(height / multiple), round(width / multiple)
        # Divisions stand as in the original, so that floats round as they do there.
        if rows * cols * multiple**2 > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            rows = max(1, math.floor(height / shrink / multiple))
            cols = max(1, math.floor(width / shrink / multiple))
        elif rows * cols * multiple**2 < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            rows, cols = math.ceil(height * grow / multiple), math.ceil(width * grow / multiple)
        return rows * multiple, cols * multiple

    def plan(self, shape: MediaShape, size_px: int, tile: Grid, pictures: int = 1) -> TilePlan:
        height, width = self.size(shape)
        return TilePlan(patches=Grid(height // self.patch_px, width // self.patch_px))

    def cut(self, image: Image, plan: TilePlan, preprocess: Preprocess) -> NDArray[np.uint8]:
        """The patches (h * w, patch_px, patch_px, 3) in reading order."""
        height, width = self._pixels(plan)
        resized = stretch(image, height, width, preprocess.interpolation)
        side = self.patch_px
        cells = np.asarray(resized, dtype=np.uint8).reshape(height // side, side, width // side, side, 3)
        return cells.transpose(0, 2, 1, 3, 4).reshape(-1, side, side, 3)

    def views(self, shape: MediaShape, plan: TilePlan, size_px: int) -> tuple[View, ...]:
        return (self.frame(shape, plan, size_px),)

    def frame(self, shape: MediaShape, plan: TilePlan, size_px: int) -> View:
        return stretched(shape, *self._pixels(plan))

    def _pixels(self, plan: TilePlan) -> tuple[int, int]:
        assert plan.patches is not None, "a plan of another resolution"
        return plan.patches.h * self.patch_px, plan.patches.w * self.patch_px

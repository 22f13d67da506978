"""Resolution strategies: how a picture of any shape becomes encoder inputs of one size.

Shape legend: N encoder inputs, H/W pixels, C channels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from sensorium.core.batch import Grid, MediaShape, TilePlan
from sensorium.core.errors import ConfigError
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

    def plan(self, shape: MediaShape, size_px: int, tile: Grid) -> TilePlan:
        return TilePlan()

    def cut(
        self, image: Image, plan: TilePlan, size_px: int, interpolation: str
    ) -> NDArray[np.uint8]:
        fitted = FIT[self.fit](image.to_pil(), size_px, size_px, interpolation)
        return np.asarray(fitted, dtype=np.uint8)[None].copy()


class AnyResolution(ResolutionConfig):
    """AnyRes tiles with a global thumbnail and a newline token after each row of features.

    The grid is the one that keeps most of the picture's resolution and then wastes least
    canvas (LLaVA-NeXT, arXiv:2310.03744v2 and its `select_best_resolution`); grids whose
    tokens exceed `max_tokens` are not considered. Padding is cut from the merged map.
    """

    kind: Literal["anyres"] = "anyres"
    grids: tuple[tuple[int, int], ...] = ((1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1))
    thumbnail: bool = True
    newline: bool = True
    max_tokens: int = 2880

    @classmethod
    def tiny(cls) -> AnyResolution:
        return cls(grids=((1, 1), (1, 2), (2, 1)))

    def plan(self, shape: MediaShape, size_px: int, tile: Grid) -> TilePlan:
        if tile.prefix and (self.thumbnail or any(r * c > 1 for r, c in self.grids)):
            raise ConfigError(
                f"tiles carry {tile.prefix} tokens outside their grid",
                expected="patch features only, so that tiles can be merged to one map",
                fix="choose feature: patch for the encoder",
            )
        best: tuple[tuple[float, float], TilePlan] | None = None
        for rows, cols in self.grids:
            candidate, score = self._candidate(shape, rows, cols, size_px)
            if candidate.num_tokens(tile) <= self.max_tokens and (best is None or score > best[0]):
                best = (score, candidate)
        if best is not None:
            return best[1]
        if tile.tokens <= self.max_tokens:
            return TilePlan()
        raise ConfigError(
            f"one tile costs {tile.tokens} tokens and max_tokens is {self.max_tokens}",
            fix="raise max_tokens or pool more in the projector",
        )

    def _candidate(
        self, shape: MediaShape, rows: int, cols: int, size_px: int
    ) -> tuple[TilePlan, tuple[float, float]]:
        canvas_h, canvas_w = rows * size_px, cols * size_px
        scale = min(canvas_w / shape.width_px, canvas_h / shape.height_px)
        height, width = _scaled(shape, scale)
        useful = min(height * width, shape.height_px * shape.width_px)
        top, left = (canvas_h - height) // 2, (canvas_w - width) // 2
        keep = (
            top / canvas_h,
            (top + height) / canvas_h,
            left / canvas_w,
            (left + width) / canvas_w,
        )
        plan = TilePlan(
            rows=rows, cols=cols, thumbnail=self.thumbnail, newline=self.newline, keep=keep
        )
        return plan, (float(useful), -float(canvas_h * canvas_w - useful))

    def cut(
        self, image: Image, plan: TilePlan, size_px: int, interpolation: str
    ) -> NDArray[np.uint8]:
        picture = image.to_pil()
        tiles: list[NDArray[np.uint8]] = []
        if plan.thumbnail:
            small = letterbox(picture, size_px, size_px, interpolation)
            tiles.append(np.asarray(small, dtype=np.uint8))
        height, width = plan.rows * size_px, plan.cols * size_px
        canvas = np.asarray(letterbox(picture, height, width, interpolation), dtype=np.uint8)
        grid = canvas.reshape(plan.rows, size_px, plan.cols, size_px, 3).swapaxes(1, 2)
        tiles.extend(grid.reshape(-1, size_px, size_px, 3))
        return np.stack(tiles)


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

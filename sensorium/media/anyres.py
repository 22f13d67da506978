"""AnyRes: a grid of tiles chosen for each picture, and the whole picture as one more.

Shape legend: N encoder inputs, H/W pixels, C channels.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from sensorium.core.batch import Grid, MediaShape, Preprocess, TilePlan
from sensorium.core.boxes import View
from sensorium.core.errors import ConfigError
from sensorium.core.parts import ResolutionConfig
from sensorium.media.boxes import VIEWS, centred, corner, squared
from sensorium.media.image import WHITE, Image
from sensorium.media.resolution import FIT, RESAMPLING

ROWS_PX = 4_000_000
"""Pixels that are padded at a time."""
TALL_PX = 10_000
"""Rows of this length that are padded and scaled in half a second, if there are as many."""


class AnyResolution(ResolutionConfig):
    """AnyRes tiles with a global thumbnail and a newline token after each row of features.

    The grid is the one that keeps most of the picture's resolution and then wastes least
    canvas, the first of equals (LLaVA-NeXT, arXiv:2310.03744v2 and its
    `select_best_resolution`); grids whose tokens exceed `max_tokens` are not considered.
    Padding is cut from the merged map. LLaVA-NeXT itself has no cap, stretches the thumbnail
    and pads with black.
    """

    kind: Literal["anyres"] = "anyres"
    grids: tuple[tuple[int, int], ...] = ((1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1))
    """(rows, columns) to choose from."""
    thumbnail: bool = True
    thumbnail_fit: Literal["letterbox", "stretch", "crop"] = "letterbox"
    newline: bool = True
    padding: tuple[int, int, int] = WHITE
    """Colour of the canvas around the picture."""
    max_tokens: int | None = 2880
    max_tiles: int | None = None
    """Shrink a merged map of more tokens than so many tiles have (LLaVA-OneVision)."""
    several: Literal["tiles", "square"] = "tiles"
    """How a picture is laid out that is not the only one of its Sample: in tiles like a lone one,
    or as one tile, padded to a square with the encoder's mean colour (LLaVA-OneVision)."""

    @classmethod
    def tiny(cls) -> AnyResolution:
        return cls(grids=((1, 1), (1, 2), (2, 1)))

    def plan(self, shape: MediaShape, size_px: int, tile: Grid, pictures: int = 1) -> TilePlan:
        if tile.prefix and (self.thumbnail or any(r * c > 1 for r, c in self.grids)):
            raise ConfigError(
                f"tiles carry {tile.prefix} tokens outside their grid",
                expected="patch features only, so that tiles can be merged to one map",
                fix="choose feature: patch for the encoder",
            )
        if tile.h == 1 and tile.w > 1 and any(rows * cols > 1 for rows, cols in self.grids):
            raise ConfigError(
                f"tiles of {tile.w} tokens in one row, which lie nowhere on the picture",
                expected="tokens on a map, because those of padding are cut away",
                fix="choose a projector that keeps the map",
            )
        cap = math.inf if self.max_tokens is None else self.max_tokens
        lone = TilePlan(newline=self.newline)
        if pictures > 1 and self.several == "square" and lone.num_tokens(tile) <= cap:
            return lone
        best: tuple[tuple[int, int], TilePlan] | None = None
        for rows, cols in self.grids:
            candidate = TilePlan(rows, cols, self.thumbnail, self.newline, shape, self.max_tiles)
            score = _score(shape, rows * size_px, cols * size_px)
            if candidate.num_tokens(tile) <= cap and (best is None or score > best[0]):
                best = (score, candidate)
        if best is not None:
            return best[1]
        if tile.tokens <= cap:
            return TilePlan()
        raise ConfigError(
            f"one tile costs {tile.tokens} tokens and max_tokens is {self.max_tokens}",
            fix="raise max_tokens or pool more in the projector",
        )

    def cut(self, image: Image, plan: TilePlan, preprocess: Preprocess) -> NDArray[np.uint8]:
        size_px = preprocess.size_px
        if self.several == "square" and plan.picture is None:
            return np.asarray(_squared(image.to_pil(), preprocess), dtype=np.uint8)[None].copy()
        tiles: list[NDArray[np.uint8]] = []
        if plan.thumbnail:
            small = FIT[self.thumbnail_fit](image, size_px, size_px, preprocess.interpolation)
            tiles.append(np.asarray(small, dtype=np.uint8))
        height, width = plan.rows * size_px, plan.cols * size_px
        inner = _fitted(image.shape, height, width)
        canvas = PILImage.new("RGB", (width, height), self.padding)
        resized = image.resized(*inner, RESAMPLING[preprocess.interpolation])
        canvas.paste(resized, corner(inner, height, width))
        pixels_HWC = np.asarray(canvas, dtype=np.uint8)
        grid = pixels_HWC.reshape(plan.rows, size_px, plan.cols, size_px, 3).swapaxes(1, 2)
        tiles.extend(grid.reshape(-1, size_px, size_px, 3))
        return np.stack(tiles)

    def views(self, shape: MediaShape, plan: TilePlan, size_px: int) -> tuple[View, ...]:
        canvas = self.frame(shape, plan, size_px)
        if self.several == "square" and plan.picture is None:
            return (canvas,)
        small = (VIEWS[self.thumbnail_fit](shape, size_px, size_px),) if plan.thumbnail else ()
        places = ((row, col) for row in range(plan.rows) for col in range(plan.cols))
        return (*small, *(canvas.tile(row, col, size_px) for row, col in places))

    def scale(self, shape: MediaShape, plan: TilePlan, size_px: int) -> float:
        """1 for a picture in a square, which is padded at its own size."""
        return 1.0 if self.several == "square" and plan.picture is None else super().scale(shape, plan, size_px)

    def frame(self, shape: MediaShape, plan: TilePlan, size_px: int) -> View:
        """The canvas that is cut into tiles, with its padding."""
        if self.several == "square" and plan.picture is None:
            return squared(shape, size_px)
        height, width = plan.rows * size_px, plan.cols * size_px
        return centred(shape, _fitted(shape, height, width), height, width)


def _score(shape: MediaShape, height: int, width: int) -> tuple[int, int]:
    """How well a canvas suits a picture: its own pixels that survive, then canvas not wasted."""
    scale = min(width / shape.width_px, height / shape.height_px)
    inner = int(shape.width_px * scale) * int(shape.height_px * scale)
    useful = min(inner, shape.height_px * shape.width_px)
    return useful, useful - height * width


def _fitted(shape: MediaShape, height: int, width: int) -> tuple[int, int]:
    """Height and width of the whole picture in proportion on a canvas.

    The short side is rounded up, as the reference's `get_patch_output_size` does and its
    choice of grid does not.
    """
    scale_w, scale_h = width / shape.width_px, height / shape.height_px
    if scale_w < scale_h:
        return min(math.ceil(shape.height_px * scale_w), height), width
    return height, min(math.ceil(shape.width_px * scale_h), width)


def _squared(picture: PILImage.Image, preprocess: Preprocess) -> PILImage.Image:
    """The picture in the middle of a square of the mean colour, scaled to the encoder's size.

    Pillow scales rows first and then columns, and so do these steps, with the same result. But
    no strip of 65,000 x 3 pixels becomes a square of 65,000: before its rows are shorter, only a
    few of them are padded at a time. Where even that would take seconds, columns are scaled
    first, which rounds some values to a neighbour.
    """
    size_px, resampling = preprocess.size_px, RESAMPLING[preprocess.interpolation]
    mean = tuple(int(value * 255) for value in preprocess.mean)
    side = max(picture.size)
    columns_first = TALL_PX < picture.height == side
    if columns_first:
        picture = picture.resize((picture.width, size_px), resampling)
    width, height = picture.size
    narrow = PILImage.new("RGB", (size_px, size_px if columns_first else side), mean)
    rows = max(1, ROWS_PX // side)
    for top in range(0, height, rows):
        part = picture.crop((0, top, width, min(top + rows, height)))
        padded = PILImage.new("RGB", (side, part.height), mean)
        padded.paste(part, ((side - width) // 2, 0))
        shorter = padded.resize((size_px, part.height), resampling)
        narrow.paste(shorter, (0, (narrow.height - height) // 2 + top))
    return narrow.resize((size_px, size_px), resampling)

"""How a picture reaches its encoder, as Views that move boxes and points with it.

Each fit of `media/resolution.py` and `media/anyres.py` has its View here, from the same numbers
that resize and paste the pixels: sizes are rounded to whole pixels first, and a box moves by what
was really done, not by the ideal ratio.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sensorium.core.batch import MediaShape
from sensorium.core.boxes import View


def letterbox_size(shape: MediaShape, height: int, width: int) -> tuple[int, int]:
    """Height and width of the whole picture in proportion inside a canvas, to the nearest pixel."""
    scale = min(width / shape.width_px, height / shape.height_px)
    new_height = max(1, round(shape.height_px * scale))
    new_width = max(1, round(shape.width_px * scale))
    return min(new_height, height), min(new_width, width)


Corner = Callable[[tuple[int, int], int, int], tuple[int, int]]
"""Where what is `inner` (height, width) begins on a canvas of height x width: left, top."""


def corner(inner: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Left and top of what is centred on a canvas; the odd pixel of padding goes right and down."""
    return (width - inner[1]) // 2, (height - inner[0]) // 2


def middle(inner: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Left and top of what is cut out of a canvas's middle, half a pixel going to the even one, as torchvision's CenterCrop has it."""
    return round((width - inner[1]) / 2), round((height - inner[0]) / 2)


def cover_size(shape: MediaShape, height: int, width: int) -> tuple[int, int]:
    """Height and width of the picture in proportion around a canvas: the short side fits, the long
    one is cut down to whole pixels, as in CLIP's own preprocessing (github.com/openai/CLIP, clip.py)
    and transformers'."""
    if width / shape.width_px >= height / shape.height_px:
        return max(height, int(width * shape.height_px / shape.width_px)), width
    return height, max(width, int(height * shape.width_px / shape.height_px))


def crop_box(shape: MediaShape, height: int, width: int, at: Corner = corner) -> tuple[float, float, float, float]:
    """The middle of the picture (left, top, right, bottom) that fills height x width pixels; it
    begins at a whole pixel of the scaled picture."""
    scaled = cover_size(shape, height, width)
    left, top = at((height, width), *scaled)
    pixel_x, pixel_y = shape.width_px / scaled[1], shape.height_px / scaled[0]
    return left * pixel_x, top * pixel_y, (left + width) * pixel_x, (top + height) * pixel_y


def centred(shape: MediaShape, inner: tuple[int, int], height: int, width: int) -> View:
    """A picture scaled to `inner` (height, width) in the middle of a canvas."""
    left, top = corner(inner, height, width)
    return View(width, height, inner[1] / shape.width_px, inner[0] / shape.height_px, left, top)


def letterboxed(shape: MediaShape, height: int, width: int) -> View:
    """The whole picture in proportion, padded.

    Shikra's own rule (`box_xyxy_expand2square`) pads before it scales; the two differ by less
    than a pixel of the encoder's input, which is what rounding the scaled picture to whole
    pixels costs.
    """
    return centred(shape, letterbox_size(shape, height, width), height, width)


def stretched(shape: MediaShape, height: int, width: int) -> View:
    """Distorted to the asked size."""
    return View(width, height, width / shape.width_px, height / shape.height_px)


def cropped(shape: MediaShape, height: int, width: int, at: Corner = corner) -> View:
    """The middle of the picture; places beyond it are not shown."""
    x0, y0, x1, y1 = crop_box(shape, height, width, at)
    scale_x, scale_y = width / (x1 - x0), height / (y1 - y0)
    return View(width, height, scale_x, scale_y, -x0 * scale_x, -y0 * scale_y)


def squared(shape: MediaShape, size_px: int) -> View:
    """Padded to a square of the longer side, then scaled."""
    side = max(shape.height_px, shape.width_px)
    left, top = corner((shape.height_px, shape.width_px), side, side)
    scale = size_px / side
    return View(size_px, size_px, scale, scale, left * scale, top * scale)


VIEWS = {"letterbox": letterboxed, "stretch": stretched, "crop": cropped, "middle": partial(cropped, at=middle)}

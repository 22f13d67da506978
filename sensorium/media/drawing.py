"""Boxes, points and masks drawn over a picture, for answers that are saved and for reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from sensorium.core.boxes import Box, Point, read_boxes, read_points
from sensorium.core.errors import DataError
from sensorium.core.masks import Mask, read_mask
from sensorium.core.sample import LOCATED_KINDS, Part
from sensorium.media.image import BLACK, WHITE, Image

COLOURS: tuple[tuple[int, int, int], ...] = (
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180),
    (70, 240, 240), (240, 50, 230), (255, 225, 25), (0, 128, 128), (128, 0, 0),
)  # fmt: skip
"""Those of the places in turn; what stands under a number of places has them in the same order each time."""
OPAQUE = 0.45
"""How much of a mask's colour is over the picture."""
LINE_PART, LETTER_PART = 150, 28
"""Parts of the picture's shorter side that a line is wide and a letter high."""
DARK = 140
"""Brightness, of 255, up to which a ground is written on in white."""
LONGEST = 80
"""Characters of a phrase that are written."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a picture's own pixels, and what it is called."""

    place: Box | Point | Mask
    phrase: str | None = None


def marks_of(parts: Sequence[Part]) -> list[Mark]:
    """What the parts of an answer point at.

    Raises:
        DataError: a part that is malformed.
    """
    marks: list[Mark] = []
    for part in (part for part in parts if part.type in LOCATED_KINDS):
        places = [read_mask({key: part.value[key] for key in ("size", "counts")}, "mask")] if part.type == "mask" else (
            read_boxes(part.value["places"], "boxes") if part.type == "boxes" else read_points(part.value["places"], part.type))  # fmt: skip
        marks += [Mark(place, part.value.get("phrase")) for place in places]
    return marks


def draw_marks(image: Image, marks: Sequence[Mark]) -> Image:
    """The picture, decoded whole, with its masks below and boxes, points and phrases above, each in a colour of its own.

    What lies outside of the picture is not drawn. The same marks give the same pixels.

    Raises:
        DataError: a mask of another size than the picture.
    """
    pixels_HWC = image.pixels_HWC.astype(np.float32)
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(marks))]
    for mark, colour in zip(marks, colours, strict=True):
        if isinstance(mark.place, Mask):
            inside_HW = _of_picture(mark.place, image)
            tinted = pixels_HWC[inside_HW] * (1 - OPAQUE) + np.asarray(colour, dtype=np.float32) * OPAQUE
            pixels_HWC[inside_HW] = tinted
    canvas = PILImage.fromarray(np.rint(pixels_HWC).astype(np.uint8), "RGB")
    pen = ImageDraw.Draw(canvas)
    side = min(canvas.size)
    width, font = max(1, side // LINE_PART), ImageFont.load_default(max(10, side // LETTER_PART))
    for mark, colour in zip(marks, colours, strict=True):
        _outline(pen, mark.place, colour, width)
    for mark, colour in zip(marks, colours, strict=True):
        corner = _corner(mark.place, canvas)
        if mark.phrase and corner is not None:
            _write(pen, mark.phrase, corner, colour, font, canvas.size)
    return Image(np.asarray(canvas, dtype=np.uint8).copy())


def _of_picture(mask: Mask, image: Image) -> np.ndarray:
    height, width = image.pixels_HWC.shape[:2]
    if mask.size != (height, width):
        raise DataError(f"a mask of {mask.width}x{mask.height} pixels over a picture of {width}x{height}",
                        expected="masks of the picture's own size")  # fmt: skip
    return mask.array()


def _outline(pen: ImageDraw.ImageDraw, place: Box | Point | Mask, colour: tuple[int, int, int], width: int) -> None:
    canvas_width, canvas_height = pen.im.size
    if isinstance(place, Point):
        if place.within(canvas_width, canvas_height) is not None:
            reach = 2 * width
            around = (place.x - reach, place.y - reach, place.x + reach, place.y + reach)
            pen.ellipse(around, fill=colour, outline=WHITE)
    elif isinstance(place, Box):
        # A box's last pixels are those before its right and lower edge.
        shown = place.within(canvas_width, canvas_height)
        if shown is not None:
            x0, y0 = min(shown.x0, canvas_width - 1), min(shown.y0, canvas_height - 1)
            pen.rectangle((x0, y0, max(x0, shown.x1 - 1), max(y0, shown.y1 - 1)), outline=colour, width=width)


def _corner(place: Box | Point | Mask, canvas: PILImage.Image) -> tuple[float, float] | None:
    """Where its phrase begins; None: nothing of it is to be seen."""
    if isinstance(place, Mask):
        box = place.box
        return None if box is None else (box.x0, box.y0)
    shown = place.within(*canvas.size)
    return None if shown is None else shown.numbers[:2]


def _write(
    pen: ImageDraw.ImageDraw, phrase: str, corner: tuple[float, float], colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont, size: tuple[int, int],
) -> None:  # fmt: skip
    """A phrase on a ground of its colour, above its corner where there is room, inside the picture as far as it fits."""
    # Half a surrogate pair is JSON but no text.
    text = " ".join(phrase.split())[:LONGEST].encode("utf-8", "replace").decode("utf-8")
    if isinstance(font, ImageFont.ImageFont):
        # Pillow without FreeType has Latin letters alone.
        text = text.encode("latin-1", "replace").decode("latin-1")
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    wide, high = right - left + 4, bottom - top + 4
    x = max(0, min(corner[0], size[0] - wide))
    y = corner[1] - high if corner[1] >= high else min(corner[1], max(0, size[1] - high))
    pen.rectangle((x, y, x + wide - 1, y + high - 1), fill=colour)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > DARK
    pen.text((x + 2 - left, y + 2 - top), text, fill=BLACK if bright else WHITE, font=font)

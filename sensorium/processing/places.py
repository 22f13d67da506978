"""Boxes and points of a Sample -> the text that its model reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from sensorium.core.batch import Seen
from sensorium.core.boxes import PlaceT, read_boxes, read_points
from sensorium.core.config import as_mapping
from sensorium.core.errors import DataError
from sensorium.core.naming import did_you_mean
from sensorium.core.sample import Part
from sensorium.text.boxes import BoxFormat, Place
from sensorium.text.chat import Piece
from sensorium.text.tokenizer import Tokenizer

KEYS = ("places", "phrase", "picture")
MARK = re.compile(r"(<[^<>]+>)")
EDGE_PX = 1
"""How far a box may reach over its picture's border, as rounded ones do; there is nothing to be seen there."""


def place_pieces(
    part: Part, pictures: Sequence[Seen], style: BoxFormat, tokenizer: Tokenizer, *, learn: bool
) -> Iterator[Piece]:
    """What a part with boxes or points becomes: text, and control tokens for the format's marks.

    Args:
        pictures: those in front of the part, in reading order.

    Raises:
        DataError: the part is malformed, or one of its places is not to be seen.
    """
    text = _write(part, pictures, style)
    specials = tokenizer.specials() if style.marked else {}
    for run in MARK.split(text):
        if run:
            yield Piece("control" if run in specials else "text", run, learn)


def _write(part: Part, pictures: Sequence[Seen], style: BoxFormat) -> str:
    row = as_mapping(part.value)
    if row is None:
        row = {"places": part.value}
    for key in row:
        if key not in KEYS:
            raise DataError(f"unknown key {key!r}", where=part.type, fix=did_you_mean(str(key), KEYS))
    phrase = row.get("phrase")
    if phrase is not None and not isinstance(phrase, str):
        raise DataError(f"phrase is {phrase!r}", expected="a string", where=part.type)
    seen = picture_of(row.get("picture", len(pictures)), pictures, part.type)
    units: list[Place]
    if part.type == "boxes":
        units = [_to_unit(box, seen, "boxes") for box in read_boxes(row.get("places"), "boxes")]
    else:
        units = [_to_unit(point, seen, part.type) for point in read_points(row.get("places"), part.type)]
    return style.write(units, phrase)


def picture_of(number: Any, pictures: Sequence[Seen], where: str) -> Seen:
    """The picture of a number from 1 on that a part names.

    Raises:
        DataError: there is no such picture in front of the part.
    """
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= len(pictures):
        count = len(pictures)
        raise DataError(
            f"places in picture {number!r} with {count} in front of them" if count
            else "places without a picture in front of them",
            expected=f"a number from 1 to {count}" if count else "a picture earlier in the conversation",
            where=where,
        )  # fmt: skip
    return pictures[number - 1]


def _to_unit(place: PlaceT, seen: Seen, where: str) -> PlaceT:
    """Unit coordinates of what of a place the encoder sees."""
    width, height = seen.shape.width_px, seen.shape.height_px
    size = f"{width}x{height}"
    inside = place.within(width, height)
    xs, ys = place.numbers[::2], place.numbers[1::2]
    over = max(*(-n for n in place.numbers), max(xs) - width, max(ys) - height)
    if inside is None or over > EDGE_PX:
        far = f"reaches {over:g} pixels over the border" if inside else "lies outside"
        raise DataError(
            f"{place} {far} of its picture of {size} pixels",
            expected=f"pixels of the original picture, x to the right and y down; boxes at most {EDGE_PX} over its border",
            where=where,
        )
    shown = seen.view.shown(inside)
    if shown is None:
        raise DataError(
            f"{place} lies in a part of its picture of {size} pixels that has been cropped away",
            where=where,
            fix="choose fit: letterbox or stretch for the model, or skip such rows with "
            "on_bad_row: skip",
        )
    return seen.view.to_unit(shown)

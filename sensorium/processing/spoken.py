"""What a model wrote -> parts of a message: text, and boxes and points in pixels of the pictures that it saw."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sensorium.core.batch import Seen
from sensorium.core.boxes import Box, PlaceT, Point
from sensorium.core.errors import DataError
from sensorium.core.sample import MISSING, Part
from sensorium.text.boxes import BoxFormat, Mention
from sensorium.text.tokenizer import Tokenizer


def spoken_parts(
    ids: Sequence[int], pictures: Sequence[Seen], style: BoxFormat | None, tokenizer: Tokenizer, *, cut: bool = False
) -> list[Part]:  # fmt: skip
    """The parts of a run of text tokens, in order.

    Places are those of the last picture: no format says which one it means. What reads like a place and is none stays text.

    Args:
        pictures: those in front of the answer, in reading order.
        style: how the model writes places; None: it writes none.
        cut: there was no room for more; a place that the text ends in the midst of is a part `missing`.
    """
    if style is None or not pictures:
        return _text(tokenizer.decode(ids))
    marked = style.marked
    text = tokenizer.decode(ids, keep_special=marked)
    strip = _stripper(tokenizer) if marked else (lambda piece: piece)
    parts: list[Part] = []
    place = 0
    for mention in style.parse(text).mentions:
        parts += _text(strip(text[place : mention.span[0]]))
        parts += _places(mention, pictures[-1], len(pictures))
        place = mention.span[1]
    begun = style.cut.search(text, place) if cut else None
    if begun is None:
        return parts + _text(strip(text[place:]))
    error = DataError("the answer ended in the midst of a box", fix="raise max_tokens")
    return [*parts, *_text(strip(text[place : begun.start()])), Part(MISSING, {"kind": "boxes", "error": str(error)})]


def _text(text: str) -> list[Part]:
    return [Part("text", text.strip())] if text.strip() else []


def _stripper(tokenizer: Tokenizer) -> Any:
    names = sorted(tokenizer.specials(), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, names)) or "(?!)")
    return lambda piece: pattern.sub("", piece)


def _places(mention: Mention, seen: Seen, number: int) -> list[Part]:
    """Boxes and points of one mention; what lies in a picture's padding is cut away, or left out."""
    phrase = {"phrase": mention.phrase} if mention.phrase else {}
    found = {"boxes": [_inside(place, seen) for place in mention.places if isinstance(place, Box)],
             "points2d": [_inside(place, seen) for place in mention.places if isinstance(place, Point)]}  # fmt: skip
    numbers = {kind: [one for one in places if one is not None] for kind, places in found.items()}
    return [Part(kind, {"places": places, "picture": number, **phrase}) for kind, places in numbers.items() if places]


def _inside(place: PlaceT, seen: Seen) -> list[float] | None:
    """The numbers of what of a place in unit coordinates lies in its picture, in pixels of that."""
    there = seen.view.backward(seen.view.from_unit(place)).within(seen.shape.width_px, seen.shape.height_px)
    return None if there is None else [round(n, 2) for n in there.numbers]

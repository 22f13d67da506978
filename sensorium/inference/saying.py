"""What is said of an answer: its words or, where it has none, where its boxes lie and what else is there, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from sensorium.core.batch import MediaShape
from sensorium.core.sample import MISSING, PLACE_KINDS, Part

ROWS, COLUMNS = ("top", "", "bottom"), ("left", "", "right")
NOUNS = {"image": "picture", "audio": "sound", "boxes": "box"}
"""Kinds of parts whose name is no word for what they are."""


def words_to_say(parts: Sequence[Part], pictures: Sequence[MediaShape]) -> str:
    """The text of an answer, or what stands for it where it holds no word.

    Args:
        pictures: the sizes of those that its places may lie in, the first one first.
    """
    text = " ".join(part.value for part in parts if part.type == "text")
    if any(letter.isalnum() for letter in text):
        return text
    return " ".join(_sentences(parts, pictures)) or text


def _sentences(parts: Sequence[Part], pictures: Sequence[MediaShape]) -> Iterator[str]:
    located = any(part.type in PLACE_KINDS for part in parts)
    for part in parts:
        if part.type in PLACE_KINDS:
            yield from _places(cast(dict[str, Any], part.value), pictures)
        elif part.type == MISSING:
            kind = part.value["kind"]
            # Not "there is none": the thing that was asked for may well be there.
            yield f"The {NOUNS.get(kind, kind)} could not be made."
        elif part.type != "text" and not (part.type == "mask" and located):
            # A mask of a box says nothing more.
            yield f"Here is the {NOUNS.get(part.type, part.type)}."


def _places(value: dict[str, Any], pictures: Sequence[MediaShape]) -> Iterator[str]:
    """Where each of a part's places is, by the ninth of its picture that its middle lies in."""
    shape, places = pictures[value["picture"] - 1], value["places"]
    phrase = (value.get("phrase") or "").strip()
    where = f" of picture {value['picture']}" if len(pictures) > 1 else ""
    for number, place in enumerate(places):
        # A point is its own middle.
        x, y = (place[0] + place[-2]) / 2, (place[1] + place[-1]) / 2
        said = _ninth(x / shape.width_px, y / shape.height_px) + where
        subject = phrase or ("It" if len(places) == 1 else "One")
        yield f"{subject[0].upper()}{subject[1:]} is {said}." if number == 0 else f"Another is {said}."


def _ninth(x: float, y: float) -> str:
    row, column = (names[min(2, max(0, int(3 * part)))] for names, part in ((ROWS, y), (COLUMNS, x)))
    if row:
        return f"at the {row} {column}".rstrip()
    return f"on the {column}" if column else "in the middle"

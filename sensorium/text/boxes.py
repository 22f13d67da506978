"""Boxes and points as text: what all formats share, and their table.

Coordinates are in unit form: parts of the width and height of the frame in which the model sees
the picture (`core/boxes.py`: View). Reading never raises, since models write anything: what is
well-formed is a Mention, what begins like one and is none is listed as Malformed.

Numbers beyond the frame are kept as they stand, and reversed corners are never put in order: so do
the originals' evaluations (sources: `text/box_formats.py`; CogVLM's repository has a reader only),
where a reversed box does not overlap with what was asked for and counts as wrong. Here it is Malformed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from sensorium.core.boxes import Box, Point
from sensorium.core.errors import DataError
from sensorium.core.tables import NameTable

BoxFormatName = Literal["shikra", "qwen_vl", "cogvlm", "minigpt_v2", "kosmos2", "emu2"]

BOX_FORMATS = NameTable(
    "box format",
    {
        "shikra": "sensorium.text.box_formats:Shikra",
        "qwen_vl": "sensorium.text.box_formats:QwenVL",
        "cogvlm": "sensorium.text.box_formats:CogVLM",
        "minigpt_v2": "sensorium.text.box_formats:MiniGPTv2",
        "kosmos2": "sensorium.text.kosmos_boxes:Kosmos2",
        "emu2": "sensorium.text.emu2_boxes:Emu2",
    },
)

Place = Box | Point
Span = tuple[int, int]
"""First character, and one past the last."""


@dataclass(frozen=True, slots=True)
class Mention:
    """Places that stand together in a text, in unit coordinates, and the phrase they belong to
    where the format marks it. `span` covers the phrase's marks too."""

    places: tuple[Place, ...]
    span: Span
    phrase: str | None = None


@dataclass(frozen=True, slots=True)
class Malformed:
    """A piece of text that begins like a place and is none."""

    span: Span
    reason: str


@dataclass(slots=True)
class Parsed:
    """What a text mentions, both lists in reading order."""

    mentions: list[Mention] = field(default_factory=list[Mention])
    malformed: list[Malformed] = field(default_factory=list[Malformed])

    @property
    def boxes(self) -> list[Box]:
        """All boxes, without their phrases."""
        return [p for mention in self.mentions for p in mention.places if isinstance(p, Box)]

    @property
    def points(self) -> list[Point]:
        """All points, without their phrases."""
        return [p for mention in self.mentions for p in mention.places if isinstance(p, Point)]

    def take(self, span: Span, pieces: Iterable[Piece], phrase: str | None = None) -> None:
        """Add a mention of the pieces that are places; list the others."""
        places: list[Place] = []
        for piece in pieces:
            if isinstance(piece.place, str):
                self.malformed.append(Malformed(piece.span, piece.place))
            else:
                places.append(piece.place)
        if places:
            self.mentions.append(Mention(tuple(places), span, phrase))


@dataclass(frozen=True, slots=True)
class Piece:
    """One place of a mention, or why it is none."""

    span: Span
    place: Place | str


class BoxFormat(Protocol):
    """How one family of models writes places."""

    quantum: float
    """Step between neighbouring coordinates, in unit form."""
    largest: float
    """The largest coordinate that is written; what lies beyond becomes this one."""
    marked: bool
    """Its marks in angle brackets are control tokens where the tokenizer has them."""
    cut: re.Pattern[str]
    """What there is of a place at the end of a text that was cut in its midst."""

    def write(self, places: Sequence[Place], phrase: str | None = None) -> str:
        """One mention.

        Raises:
            DataError: there is nothing to write, the format has no points, or the phrase holds
                what would read as its marks.
        """
        ...

    def parse(self, text: str) -> Parsed:
        """Everything that a text mentions; never raises."""
        ...


def find_box_format(name: str) -> BoxFormat:
    """The format called `name`.

    Raises:
        ConfigError: there is none; the message carries the nearest one.
    """
    return BOX_FORMATS.find(name)()


def as_box(numbers: Sequence[float]) -> Box | str:
    """A box of four numbers, or why they are none."""
    x0, y0, x1, y1 = numbers
    return "corners reversed" if x0 > x1 or y0 > y1 else Box(x0, y0, x1, y1)


def only_boxes(places: Sequence[Place], format_name: str) -> list[Box]:
    """The places, which must be boxes and at least one.

    Raises:
        DataError: they are not.
    """
    boxes = [place for place in places if isinstance(place, Box)]
    if not boxes or len(boxes) < len(places):
        found = "a point" if places else "no box"
        raise DataError(
            f"{found} to be written in the format {format_name!r}",
            expected="one box or more",
            fix="give boxes, or choose a format with points: shikra",
        )
    return boxes


def unmarked(phrase: str) -> str:
    """The phrase, if it can stand between marks.

    Raises:
        DataError: it holds angle brackets, of which all marks are made.
    """
    if "<" in phrase or ">" in phrase:
        raise DataError(f"phrase {phrase!r} holds an angle bracket", fix="leave it out")
    return phrase


def steps(numbers: Iterable[float], count: int, most: int) -> list[int]:
    """Unit coordinates as whole steps of 1 / count, to the nearest, from 0 to `most`."""
    return [min(max(round(number * count), 0), most) for number in numbers]

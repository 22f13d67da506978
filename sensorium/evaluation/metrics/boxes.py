"""Reading where an answer points, and how much two boxes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sensorium.core.boxes import Box
from sensorium.evaluation.metrics.answers import words
from sensorium.text.boxes import BOX_FORMATS, find_box_format

DENYING = frozenset(["no", "not", "none", "nothing", "isn't", "aren't", "cannot", "can't"])


@dataclass(frozen=True, slots=True)
class Pointed:
    """What an answer says of where something is."""

    state: Literal["box", "denied", "malformed"]
    box: Box | None = None
    """Its first box, in unit coordinates of the frame."""


def read_pointing(text: str) -> Pointed:
    """The first box that an answer writes, in whichever format; without one, whether it denies."""
    for name in BOX_FORMATS:
        boxes = find_box_format(name).parse(text).boxes
        if boxes:
            return Pointed("box", boxes[0])
    return Pointed("denied" if DENYING & set(words(text)) else "malformed")


def area(box: Box) -> float:
    return (box.x1 - box.x0) * (box.y1 - box.y0)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union; 0 of two boxes without an inside."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    shared = max(0.0, width) * max(0.0, height)
    whole = area(one) + area(other) - shared
    return shared / whole if whole > 0 else 0.0

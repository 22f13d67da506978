"""Reading where an answer points."""

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

"""Run lengths as text, as COCO's annotations and pycocotools write them.

A number is written in groups of five bits, the lowest first, each group as one character from "0" on; a sixth bit says
that more follow, and the highest bit of the last group is the sign. From the fourth number on it is the difference
from the number two places before, because a mask's columns are much like their neighbours.

Source: the format of github.com/cocodataset/cocoapi (common/maskApi.c), in words of our own.
"""

from __future__ import annotations

from collections.abc import Sequence

from sensorium.core.errors import DataError

FIRST = ord("0")
GROUP, MORE, SIGN = 0b11111, 0b100000, 0b10000
DIFFERENT_FROM = 3
"""The place in the list from which on differences are written."""
LONGEST_BITS = 60
"""More than any picture's number of pixels; without a limit a long text would be one huge number."""


def write_runs(runs: Sequence[int]) -> str:
    """The text of run lengths."""
    return "".join(
        _group_text(run - runs[i - 2] if i >= DIFFERENT_FROM else run) for i, run in enumerate(runs)
    )


def _group_text(number: int) -> str:
    text = ""
    while True:
        group, number = number & GROUP, number >> 5
        # What is left is all sign, and this group's highest bit says so.
        last = number == (-1 if group & SIGN else 0)
        text += chr(FIRST + (group if last else group | MORE))
        if last:
            return text


def read_runs(text: str) -> list[int]:
    """The run lengths of a text; numbers may be anything, also negative.

    Raises:
        DataError: a character of no such text, or a number that does not end.
    """
    runs: list[int] = []
    number = bits = 0
    for place, character in enumerate(text):
        code = ord(character) - FIRST
        if not 0 <= code < 2 * MORE:
            raise DataError(f"character {character!r} at place {place + 1} of the run lengths",
                            expected='characters from "0" to "o", as pycocotools writes them')  # fmt: skip
        number |= (code & GROUP) << bits
        bits += 5
        if code & MORE:
            if bits > LONGEST_BITS:
                raise DataError(f"a number of more than {LONGEST_BITS} bits at place {place + 1} of the run lengths")
            continue
        if code & SIGN:
            number -= 1 << bits
        runs.append(number + runs[-2] if len(runs) >= DIFFERENT_FROM else number)
        number = bits = 0
    if bits:
        raise DataError("the text of the run lengths ends within a number", fix="check that it was not cut")
    return runs

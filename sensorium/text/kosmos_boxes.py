"""Kosmos-2's format (arXiv:2306.14824): coordinates are tokens of their own."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from sensorium.core.boxes import Box
from sensorium.text.boxes import Parsed, Piece, Place, as_box, only_boxes, unmarked

SIDE = 32
"""Cells along each side of the grid."""


class Kosmos2:
    """`<phrase>a fire</phrase><object><patch_index_0005><patch_index_0911></object>`.

    The cells of a 32 x 32 grid that hold the top left and the bottom right corner; several boxes
    are joined by `</delimiter_of_multi_objects/>`. Read as in transformers' processing_kosmos2.py
    and kosmos-2/demo/decode_string.py of github.com/microsoft/unilm: corners are cell centres, but
    a box within one row or one column of cells reaches to the outer edges of its cells. As there, an
    object with one bad pair is bad as a whole. Other than there, spaces between the tokens are
    allowed, and a cell beyond the grid, for which there is no token, is malformed.
    """

    quantum = 1 / SIDE
    largest = 1.0
    marked = True
    cut = re.compile(r"<object>(?:(?!</object>).)*$", re.DOTALL)

    _mention = re.compile(
        r"(?:<phrase>(?P<phrase>[^<]+)</phrase>\s*)?<object>"
        r"(?P<pairs>(?:\s*(?:<patch_index_[0-9]{1,9}>|</delimiter_of_multi_objects/>))*)\s*(?P<end></object>)?",
        re.ASCII,
    )
    _pair = re.compile(r"\s*<patch_index_([0-9]+)>\s*<patch_index_([0-9]+)>\s*", re.ASCII)
    _between = "</delimiter_of_multi_objects/>"

    def write(self, places: Sequence[Place], phrase: str | None = None) -> str:
        boxes = only_boxes(places, "kosmos2")
        pairs = ("".join(f"<patch_index_{i:04d}>" for i in _cells(box)) for box in boxes)
        named = "" if phrase is None else f"<phrase>{unmarked(phrase)}</phrase>"
        return f"{named}<object>{self._between.join(pairs)}</object>"

    def parse(self, text: str) -> Parsed:
        found = Parsed()
        for match in self._mention.finditer(text):
            phrase = None if match["phrase"] is None else match["phrase"].strip()
            pairs = [self._pair.fullmatch(pair) for pair in match["pairs"].split(self._between)]
            if not match["end"]:
                pieces = [Piece(match.span(), "not closed, or not only location tokens")]
            elif None in pairs:
                pieces = [Piece(match.span(), "expected two location tokens for each box")]
            else:
                cells = [(int(pair[1]), int(pair[2])) for pair in pairs if pair]
                pieces = [Piece(match.span("pairs"), _box(*pair)) for pair in cells]
            found.take(match.span(), pieces, phrase)
        return found


def _cells(box: Box) -> tuple[int, int]:
    """Indices of the first and the last cell that a box reaches into."""
    left, top = (_cell(math.floor(n * SIDE)) for n in (box.x0, box.y0))
    # A border between two cells belongs to the one inside; a box without an inside to the first.
    right, bottom = (_cell(math.ceil(n * SIDE) - 1) for n in (box.x1, box.y1))
    return top * SIDE + left, max(bottom, top) * SIDE + max(right, left)


def _cell(number: int) -> int:
    return min(max(number, 0), SIDE - 1)


def _box(first: int, last: int) -> Box | str:
    if max(first, last) >= SIDE * SIDE:
        return f"a location beyond {SIDE * SIDE - 1}"
    (top, left), (bottom, right) = divmod(first, SIDE), divmod(last, SIDE)
    if left > right or top > bottom:
        return "corners reversed"
    inset = 0.0 if left == right or top == bottom else 0.5
    return as_box([(left + inset) / SIDE, (top + inset) / SIDE,
                   (right + 1 - inset) / SIDE, (bottom + 1 - inset) / SIDE])  # fmt: skip

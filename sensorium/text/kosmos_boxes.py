"""Kosmos-2's format (arXiv:2306.14824): coordinates are tokens of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sensorium.core.boxes import Box
from sensorium.text.boxes import Parsed, Place, as_box, only_boxes
from sensorium.text.place_tokens import CUT, read_places, written_places

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
    cut = CUT

    def write(self, places: Sequence[Place], phrase: str | None = None) -> str:
        return written_places((_cells(box) for box in only_boxes(places, "kosmos2")), phrase)

    def parse(self, text: str) -> Parsed:
        return read_places(text, 2, lambda numbers: _box(*numbers))


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

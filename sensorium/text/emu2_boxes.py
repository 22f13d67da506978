"""Emu2's format (arXiv:2312.13286, B.1): each coordinate is a token, in parts of 224 of the picture."""

from __future__ import annotations

from collections.abc import Sequence

from sensorium.core.boxes import Box
from sensorium.text.boxes import Parsed, Place, as_box, only_boxes, steps
from sensorium.text.place_tokens import CUT, read_places, written_places

PARTS, LAST = 224, 256
"""Steps along each side, and the last number that has a token: those beyond 224 stand in no picture."""


class Emu2:
    """`<phrase>a fire</phrase><object><patch_index_0012><patch_index_0070><patch_index_0130><patch_index_0224></object>`.

    Left, top, right and bottom. The paper calls the tokens `<p>`, `<coor>` and `<loc000>` to `<loc224>`; the released vocabulary
    (github.com/baaivision/Emu, Emu2/emu/lm.py, constants.py) has Kosmos-2's names and 257 places, of which Emu2/README.md says that
    coordinates range from 0 to 224, and issue 66 of the repository that they are [x1, y1, x2, y2]. Not published: whether numbers are
    rounded or cut off (here: rounded), and that several boxes are joined by `</delimiter_of_multi_objects/>` as Kosmos-2's are, which
    the vocabulary has. Rows of its own data have a phrase behind its place, too; it is not found there.
    """

    quantum = 1 / PARTS
    largest = 1.0
    marked = True
    cut = CUT

    def write(self, places: Sequence[Place], phrase: str | None = None) -> str:
        return written_places((steps(box.numbers, PARTS, PARTS) for box in only_boxes(places, "emu2")), phrase)

    def parse(self, text: str) -> Parsed:
        return read_places(text, 4, _box)


def _box(numbers: Sequence[int]) -> Box | str:
    return f"a location beyond {LAST}" if max(numbers) > LAST else as_box([number / PARTS for number in numbers])

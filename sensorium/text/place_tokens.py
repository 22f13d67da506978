"""Places as tokens of their own between the tags of Kosmos-2 (arXiv:2306.14824), which Emu2 took over."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from sensorium.core.boxes import Box
from sensorium.text.boxes import Parsed, Piece, unmarked

BETWEEN = "</delimiter_of_multi_objects/>"
CUT = re.compile(r"<object>(?:(?!</object>).)*$", re.DOTALL)
WORDS = {2: "two", 4: "four"}
_MENTION = re.compile(
    r"(?:<phrase>(?P<phrase>[^<]+)</phrase>\s*)?<object>"
    rf"(?P<tokens>(?:\s*(?:<patch_index_[0-9]{{1,9}}>|{BETWEEN}))*)\s*(?P<end></object>)?",
    re.ASCII,
)
_NUMBER = re.compile(r"[0-9]+", re.ASCII)


def written_places(boxes: Iterable[Sequence[int]], phrase: str | None) -> str:
    """One mention: the numbers of each box as tokens.

    Raises:
        DataError: the phrase holds what would read as a tag.
    """
    named = "" if phrase is None else f"<phrase>{unmarked(phrase)}</phrase>"
    return f"{named}<object>{BETWEEN.join(''.join(f'<patch_index_{n:04d}>' for n in box) for box in boxes)}</object>"


def read_places(text: str, each: int, as_place: Callable[[Sequence[int]], Box | str]) -> Parsed:
    """All mentions of a text; an object with a box of another number of tokens is bad as a whole.

    Args:
        each: how many tokens are a box.
        as_place: the box of so many numbers, or why they are none.
    """
    found = Parsed()
    for match in _MENTION.finditer(text):
        phrase = None if match["phrase"] is None else match["phrase"].strip()
        boxes = [[int(number) for number in _NUMBER.findall(box)] for box in match["tokens"].split(BETWEEN)]
        if not match["end"]:
            pieces = [Piece(match.span(), "not closed, or not only location tokens")]
        elif any(len(box) != each for box in boxes):
            pieces = [Piece(match.span(), f"expected {WORDS[each]} location tokens for each box")]
        else:
            pieces = [Piece(match.span("tokens"), as_place(box)) for box in boxes]
        found.take(match.span(), pieces, phrase)
    return found

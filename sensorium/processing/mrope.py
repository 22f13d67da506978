"""Time, row and column of every token (M-RoPE of Qwen2-VL, arXiv:2409.12191).

A text token's three places are equal and count on by one. A picture of h x w tokens that begins at
place s has the time s, the rows s to s + h - 1 and the columns s to s + w - 1; behind it text goes on
at s + max(h, w), one behind the furthest of them.
"""

from __future__ import annotations

from sensorium.core.batch import Place3
from sensorium.processing.draft import Draft


def three_places(draft: Draft, length: int) -> list[Place3]:
    """The places of the first `length` tokens. Each of separate turns counts on from the media in
    front of all of them.

    Args:
        draft: with a map for each medium; no medium is cut by `length`.
    """
    places: list[Place3] = []
    start = 0
    for (_, first, stop), grid in zip(draft.spans, draft.maps, strict=True):
        if stop > length:
            break
        start = _count_on(places, start, first - len(places))
        places += [(start, start + row, start + col) for row in range(grid.h) for col in range(grid.w)]
        start += max(grid.h, grid.w)
    branches = draft.branches[len(places) : length] or [0] * (length - len(places))
    for branch in dict.fromkeys(branches):
        _count_on(places, start, branches.count(branch))
    return places


def _count_on(places: list[Place3], start: int, count: int) -> int:
    """Add text tokens; the place behind them."""
    places += [(place, place, place) for place in range(start, start + count)]
    return start + count

"""Which samples share a row or a batch, by their lengths alone.

Packing is best-fit-decreasing (Johnson 1974): the longest sample first, each into the row that it
fills best. Rows are found by how much room they have: the amounts are the bits of one integer, so
that the smallest that is enough is one shift away, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TRIES = 8
"""Amounts of room, and rows of each, that are looked at for one that may take several pictures."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a sample takes: tokens of each row that it becomes, and pictures in all."""

    lengths: tuple[int, ...]
    pictures: int = 0

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


@dataclass(frozen=True, slots=True)
class Limits:
    """What fits into a row."""

    tokens: int
    pictures: int | None = None


class _Rooms:
    """Rows by how much room they have."""

    def __init__(self, most: int) -> None:
        self.rows: list[list[int]] = [[] for _ in range(most + 1)]
        self.bits = 0
        """Bit n: there are rows with room for n tokens."""

    def add(self, row: int, room: int) -> None:
        if room:
            self.rows[room].append(row)
            self.bits |= 1 << room

    def least(self, need: int) -> int:
        """The least room that is enough; 0: there is none."""
        enough = self.bits >> need
        return need - 1 + (enough & -enough).bit_length() if enough else 0

    def take(self, room: int, place: int = -1) -> int:
        found = self.rows[room]
        row = found.pop(place)
        if not found:
            self.bits ^= 1 << room
        return row


def pack_rows(sizes: Sequence[Size], limits: Limits) -> list[list[int]]:
    """Places in `sizes`, laid into rows; nothing is lost, and the same sizes give the same rows.

    A sample that is beyond the limits by itself has a row to itself, or one without further pictures.
    """
    tokens = [size.tokens for size in sizes]
    cap = limits.pictures
    rows: list[list[int]] = []
    shown: list[int] = []
    # Rows that may take pictures, and those that may not: text fills these up.
    free, closed = _Rooms(limits.tokens), _Rooms(limits.tokens)
    for index in sorted(range(len(sizes)), key=tokens.__getitem__, reverse=True):
        need, pictures = max(1, tokens[index]), sizes[index].pictures
        room, where = free.least(need), free
        if cap is not None and not pictures:
            other = closed.least(need)
            if other and (not room or other <= room):
                room, where = other, closed
        if room and cap is not None and pictures > 1:
            room, row = _with_pictures(free, need, cap - pictures, shown)
        else:
            row = where.take(room) if room else -1
        if not room:
            row, room = len(rows), limits.tokens
            rows.append([])
            shown.append(0)
        rows[row].append(index)
        shown[row] += pictures
        (free if cap is None or shown[row] < cap else closed).add(row, max(0, room - need))
    return rows


def _with_pictures(rooms: _Rooms, need: int, most: int, shown: list[int]) -> tuple[int, int]:
    """Room and number of a row, taken out, with at most so many pictures; room 0: none found."""
    room = rooms.least(need)
    for _ in range(TRIES):
        if not room:
            break
        for place, row in enumerate(rooms.rows[room][:TRIES]):
            if shown[row] <= most:
                return room, rooms.take(room, place)
        room = rooms.least(room + 1)
    return 0, -1


def group_by_length(sizes: Sequence[Size], budget: int) -> list[list[int]]:
    """Places in `sizes` in groups of samples of like length: padded to its longest row, none has more
    tokens than `budget`, except for a sample that is beyond it alone."""
    groups: list[list[int]] = []
    longest = rows = 0
    for index in sorted(range(len(sizes)), key=lambda i: -max(sizes[i].lengths)):
        more = len(sizes[index].lengths)
        if not groups or (rows + more) * longest > budget:
            groups.append([])
            longest, rows = max(sizes[index].lengths), 0
        groups[-1].append(index)
        rows += more
    return groups


def padded_tokens(sizes: Sequence[Size]) -> int:
    """Tokens of a batch whose every row is a sample's own, padding included."""
    return max(max(s.lengths) for s in sizes) * sum(len(s.lengths) for s in sizes)

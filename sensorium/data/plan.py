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
        found = self.rows[room]
        if not found:
            self.bits |= 1 << room
        found.append(row)

    def least(self, need: int) -> int:
        """The least room that is enough; 0: there is none."""
        enough = self.bits >> need
        return need - 1 + (enough & -enough).bit_length() if enough else 0

    def take(self, room: int) -> int:
        found = self.rows[room]
        row = found.pop()
        if not found:
            self.bits ^= 1 << room
        return row


def pack_rows(sizes: Sequence[Size], limits: Limits) -> list[list[int]]:
    """Places in `sizes`, laid into rows; nothing is lost, and the same sizes give the same rows.

    A sample that is beyond the limits by itself has a row to itself, or one without further pictures.
    """
    tokens = [s.lengths[0] if len(s.lengths) == 1 else s.tokens for s in sizes]
    cap = limits.pictures
    rows: list[list[int]] = []
    shown: list[int] = []
    # Rows that may take pictures, and those that may not: text fills these up.
    free, closed = _Rooms(limits.tokens), _Rooms(limits.tokens)
    for index in sorted(range(len(sizes)), key=tokens.__getitem__, reverse=True):
        need, pictures, where = tokens[index] or 1, sizes[index].pictures, free
        room = free.least(need)
        if cap is not None:
            if not pictures:
                other = closed.least(need)
                if other and (not room or other <= room):
                    room, where = other, closed
            elif room and pictures > 1:
                room = _with_pictures(free, room, cap - pictures, shown)
        if room:
            row = where.take(room)
            rows[row].append(index)
            shown[row] += pictures
        else:
            row, room = len(rows), limits.tokens
            rows.append([index])
            shown.append(pictures)
        if room > need:
            (free if cap is None or shown[row] < cap else closed).add(row, room - need)
    return rows


def _with_pictures(rooms: _Rooms, room: int, most: int, shown: list[int]) -> int:
    """The least room from `room` on of a row with at most so many pictures, which is put last of those
    with that room; 0: none found."""
    for _ in range(TRIES):
        if not room:
            break
        found = rooms.rows[room]
        for place in range(max(0, len(found) - TRIES), len(found)):
            if shown[found[place]] <= most:
                found.append(found.pop(place))
                return room
        room = rooms.least(room + 1)
    return 0


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

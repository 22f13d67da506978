"""The plan of the batches: a window of picks at a time, by lengths that need no decoding.

A window begins with what the one before left over and goes on with the next picks, until there is
enough to fill its rows well. The plan is a pure function of the window's start; so the state of a run
is that start and how many of the window's batches were taken. It knows of no workers and ranks, and of
bad rows only those that show before anything is decoded.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sensorium.core.errors import DataError
from sensorium.core.hashing import stable_int
from sensorium.data.mixture import MixtureOrder, MixtureState, Pick
from sensorium.data.plan import Limits, Size, group_by_length, pack_rows, padded_tokens

ROWS, PICKS = 32, 256
"""Rows that a window fills at least, and picks that it has, so that long and short samples find each other."""
BATCHES = 4
WELL_FILLED = 0.99
PATIENCE = 4
"""Windows that a sample waits at most for a row that it fills well."""


T = TypeVar("T", covariant=True)


class Coming(Protocol[T]):
    """A result that may still be worked on."""

    def result(self) -> T: ...


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How samples become batches."""

    batch_size: int
    max_length: int
    pack: bool = False
    max_pictures: int | None = None
    token_budget: int | None = None
    seed: int = 0
    skip_bad: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """A batch to be: the picks of each row, for all ranks together."""

    rows: list[list[Pick]]
    state: MixtureState
    """To go on behind it."""
    problems: list[str]
    """Rows found bad since the batch before."""


class Windows:
    """An endless plan."""

    def __init__(
        self, order: MixtureOrder, options: PlanOptions, measure: Callable[[Pick], Coming[Size]]
    ) -> None:
        """Take an order.

        Args:
            measure: begins to find what a pick takes; its result raises a DataError for a bad row.
        """
        self.order = order
        self.options = options
        self.measure = measure
        self._coming: deque[tuple[Pick, list[int], Coming[Size]]] = deque()
        self._bad_in_row = 0

    def batches(self, state: MixtureState) -> Generator[Planned]:
        """The batches from `state` on; to be called once.

        Raises:
            DataError: a row is bad and `skip_bad` is off, or all rows are bad.
        """
        counts, taken, ahead = list(state.counts), state.taken, MixtureState(list(state.counts))
        old = [(pick, size.result()) for pick, size in [(p, self.measure(p)) for p in state.carried]]
        while True:
            start = MixtureState(counts, [pick for pick, _ in old])
            pool, problems, counts = self._fill(list(old), ahead, counts)
            batches, left = self._plan(pool)
            picks = [pick for pick, _ in pool]
            old = [pool[i] for i in sorted(left)]
            for number, rows in enumerate(batches[taken:], start=taken + 1):
                after = MixtureState(list(start.counts), list(start.carried), number)
                if number == len(batches):
                    after = MixtureState(list(counts), [pick for pick, _ in old])
                # What was bad was said with the first of the window's batches.
                said = problems if number == 1 else []
                yield Planned([[picks[i] for i in row] for row in rows], after, said)
                self._look_ahead(ahead, 2 * sum(map(len, rows)), most=len(pool))
            taken = 0

    def _look_ahead(self, ahead: MixtureState, more: int, *, most: int) -> None:
        """Begin to measure further picks, as long as no more than `most` wait."""
        for _ in range(min(more, most - len(self._coming))):
            pick = self.order.next(ahead)
            self._coming.append((pick, list(ahead.counts), self.measure(pick)))

    def _fill(
        self, pool: list[tuple[Pick, Size]], ahead: MixtureState, counts: list[int]
    ) -> tuple[list[tuple[Pick, Size]], list[str], list[int]]:
        """A window's picks, what was bad among them, and the counts behind the last."""
        problems: list[str] = []
        depth = max(4, 2 * self.options.batch_size)
        tokens, before = sum(self._taken(size) for _, size in pool), len(pool)
        while not self._enough(tokens, len(pool), len(pool) - before):
            self._look_ahead(ahead, depth, most=max(depth, len(self._coming)))
            pick, counts, coming = self._coming.popleft()
            try:
                size = coming.result()
            except DataError as error:
                if not self.options.skip_bad:
                    raise
                problems.append(str(error))
                self._bad_in_row += 1
                if self._bad_in_row > sum(self.order.lengths):
                    raise DataError(f"every row of the mixture is bad; the last: {error}") from None
                continue
            self._bad_in_row = 0
            pool.append((pick, size))
            tokens += self._taken(size)
        return pool, problems, counts

    def _taken(self, size: Size) -> int:
        """At most a whole row's or batch's tokens, so that their sum says how many are needed."""
        options = self.options
        return min(size.tokens, options.token_budget or options.max_length)

    def _enough(self, tokens: int, picks: int, new: int) -> bool:
        options = self.options
        if options.token_budget is not None:
            unit, rows, least = options.token_budget, ROWS, 2
        elif options.pack:
            unit, least = options.max_length, options.batch_size + 1
            rows = max(ROWS, BATCHES * options.batch_size)
        else:
            return picks >= options.batch_size
        # A window of a small data set ends with it: no row comes again before all have come.
        if new >= sum(self.order.lengths):
            return tokens >= least * unit
        return tokens >= rows * unit and picks >= PICKS

    def _plan(self, pool: list[tuple[Pick, Size]]) -> tuple[list[list[list[int]]], set[int]]:
        """Batches of rows of places in `pool`, and the places left for the next window."""
        options, sizes = self.options, [size for _, size in pool]
        if options.token_budget is not None:
            units = group_by_length(sizes, options.token_budget)
            full = [padded_tokens([sizes[i] for i in unit]) / options.token_budget for unit in units]
            step = 1
        elif options.pack:
            units = pack_rows(sizes, Limits(options.max_length, options.max_pictures))
            full = [sum(sizes[i].tokens for i in unit) / options.max_length for unit in units]
            step = options.batch_size
        else:
            return [[[i] for i in range(len(sizes))]], set()
        # What was left over again and again is not once more, if others can be.
        late = max(pick.number for pick, _ in pool) - PATIENCE * len(pool)
        first = [min(pool[i][0].number for i in unit) for unit in units]
        order = sorted(range(len(units)), key=lambda n: (first[n] >= late, -full[n], n))
        drop = len(units) % step
        if not drop and len(units) > step and full[order[-1]] < WELL_FILLED:
            drop = step
        left = {i for n in order[len(order) - drop :] for i in units[n]}
        kept = [units[n] for n in order[: len(order) - drop]]
        # Longest samples stand in the first rows, and steps shall be alike.
        random.Random(stable_int("rows", options.seed, pool[0][0].number)).shuffle(kept)
        if options.token_budget is not None:
            return [[[i] for i in unit] for unit in kept], left
        return [kept[n : n + step] for n in range(0, len(kept), step)], left

"""Weighted mixtures in a deterministic, resumable order.

The order is arithmetic: the n-th pick depends on the seed and n alone, not on workers,
and the whole state is how often each source was picked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from sensorium.core.errors import ConfigError
from sensorium.core.hashing import stable_int


@dataclass(frozen=True, slots=True)
class Pick:
    """One draw: which source, which row, in which pass over that source."""

    source: int
    row: int
    epoch: int
    number: int


@dataclass(slots=True)
class MixtureState:
    """How often each source was picked so far; where batches are planned in windows
    (`data/window.py`), before the window."""

    counts: list[int] = field(default_factory=list[int])
    carried: list[Pick] = field(default_factory=list[Pick])
    """Picked before the window, and left for it."""
    taken: int = 0
    """Batches of the window that were taken."""

    def copy(self) -> MixtureState:
        return MixtureState(list(self.counts), list(self.carried), self.taken)

    def plan(self) -> list[int]:
        """What counts do not say, as numbers to be saved; nothing between windows without rest."""
        if not self.taken and not self.carried:
            return []
        return [self.taken, *(n for p in self.carried for n in (p.source, p.row, p.epoch, p.number))]

    @classmethod
    def saved(cls, counts: list[int], plan: list[int]) -> MixtureState:
        """A state of its counts and its `plan()`."""
        rest = plan[1:]
        carried = [Pick(*rest[i : i + 4]) for i in range(0, len(rest), 4)]
        return cls(list(counts), carried, plan[0] if plan else 0)


class MixtureOrder:
    """Interleaves sources by weight and walks each in a fresh permutation every epoch."""

    def __init__(self, lengths: Sequence[int], weights: Sequence[float], seed: int) -> None:
        if not lengths or any(n <= 0 for n in lengths):
            raise ConfigError("a mixture needs at least one source, and none may be empty")
        if len(weights) != len(lengths) or any(w <= 0 for w in weights):
            raise ConfigError("every source needs a weight above zero")
        total = sum(weights)
        self.lengths = list(lengths)
        self.shares = [w / total for w in weights]
        self.seed = seed

    def start(self) -> MixtureState:
        """The state before the first pick."""
        return MixtureState([0] * len(self.lengths))

    def next(self, state: MixtureState) -> Pick:
        """The next pick; `state` moves on by one.

        The source furthest behind its share is taken, so that any prefix of the order is
        mixed as the weights ask, to within one sample.
        """
        number = sum(state.counts)
        behind = [
            share * (number + 1) - count
            for share, count in zip(self.shares, state.counts, strict=True)
        ]
        source = max(range(len(behind)), key=lambda i: (behind[i], -i))
        epoch, place = divmod(state.counts[source], self.lengths[source])
        state.counts[source] += 1
        row = _permutation(self.lengths[source], self.seed, source, epoch)[place]
        return Pick(source, row, epoch, number)


@lru_cache(maxsize=16)
def _permutation(length: int, seed: int, source: int, epoch: int) -> tuple[int, ...]:
    rows = list(range(length))
    random.Random(stable_int("order", seed, source, epoch)).shuffle(rows)
    return tuple(rows)

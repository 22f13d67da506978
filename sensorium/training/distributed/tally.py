"""What the batches of a step came to: on this rank, and on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sensorium.training.distributed.ranks import Ranks, raise_one

Means = dict[str, tuple[float, float]]
"""Parts of the loss by name: a mean, and over how many learned tokens."""


@dataclass(slots=True)
class Tally:
    """Sums over the batches of a step."""

    total: float = 0.0
    """Of losses."""
    count: float = 0
    """Of targets."""
    samples: int = 0
    tokens: int = 0
    problems: list[str] = field(default_factory=list[str])
    left_out: int = 0
    """Samples that were passed over because they spiked."""
    cut: dict[str, int] = field(default_factory=dict[str, int])
    """What `max_length` cut off: a part of the log's line."""
    batches: list[Means] = field(default_factory=list["Means"])
    """Of each batch, what is logged."""
    reached: str = "0"
    """Which parameters have a gradient (`distributed/gradients.py`)."""
    stop: int | None = None
    """A signal that asks the run to end."""

    def means(self) -> dict[str, float]:
        """Means that are logged, over those of the step's batches that have them."""
        found: dict[str, list[float]] = {}
        for batch in self.batches:
            for key, (value, _) in batch.items():
                found.setdefault(key, []).append(value)
        return {key: sum(values) / len(values) for key, values in found.items()}


def of_all(ranks: Ranks, mine: Tally, error: Exception | None) -> tuple[Tally, list[str]]:
    """The tally of all ranks, and of each one what it reached.

    Args:
        error: what went wrong on this rank.

    Raises:
        Exception: `error` itself, where there is one.
        SensoriumError: another rank failed; its message is in this one's.
    """
    if ranks.world_size == 1:
        raise_one(error, [])
        return mine, [mine.reached]
    said: dict[str, Any] = asdict(mine) if error is None else {"error": f"{type(error).__name__}: {error}"}
    told = ranks.gather(said)
    raise_one(error, [each.get("error") for each in told])
    tallies = [Tally(**each) for each in told]
    return _summed(tallies), [each.reached for each in tallies]


def _summed(tallies: Sequence[Tally]) -> Tally:
    whole = Tally()
    for each in tallies:
        whole.total += each.total
        whole.count += each.count
        whole.samples += each.samples
        whole.tokens += each.tokens
        whole.left_out += each.left_out
        whole.stop = each.stop if whole.stop is None else whole.stop
        whole.problems += each.problems
        for key, value in each.cut.items():
            whole.cut[key] = whole.cut.get(key, 0) + value
    whole.batches = [mean_of(shares) for shares in zip(*(each.batches for each in tallies), strict=True)]
    return whole


def mean_of(shares: Sequence[Means]) -> Means:
    """The means of a batch out of those of its passes, or of every rank's share of it; each by its learned tokens. A pass that
    lacks a name, for it had no media of that kind, does not count for it."""
    named: Means = {}
    for key in dict.fromkeys(key for share in shares for key in share):
        found = [share[key] for share in shares if key in share]
        tokens = sum(count for _, count in found)
        # A share from which nothing is learned has no mean, unless there is no other.
        named[key] = sum(value * (count / tokens if tokens else 1 / len(found)) for value, count in found), tokens
    return named

"""What the batches of a step came to: on this rank, and on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sensorium.training.distributed.ranks import Ranks, raise_one


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
    batches: list[tuple[int, dict[str, float]]] = field(default_factory=list[tuple[int, dict[str, float]]])
    """Of each batch its learned tokens, and means over them that are logged."""
    reached: str = "0"
    """Which parameters have a gradient (`distributed/gradients.py`)."""
    stop: int | None = None
    """A signal that asks the run to end."""

    def means(self) -> dict[str, float]:
        """Means that are logged, over the step's batches."""
        named: dict[str, float] = {}
        for _, parts in self.batches:
            for key, value in parts.items():
                named[key] = named.get(key, 0.0) + value / len(self.batches)
        return named


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
    whole.batches = [_mean(shares) for shares in zip(*(each.batches for each in tallies), strict=True)]
    return whole


def _mean(shares: Sequence[tuple[int, dict[str, float]]]) -> tuple[int, dict[str, float]]:
    """One batch out of every rank's share of it."""
    learned = sum(tokens for tokens, _ in shares)
    named: dict[str, float] = {}
    for tokens, parts in shares:
        for key, value in parts.items():
            # A share from which nothing is learned has no mean.
            named[key] = named.get(key, 0.0) + (value * tokens / max(1, learned) if tokens else 0.0)
    return learned, named

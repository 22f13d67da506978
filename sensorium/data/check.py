"""Read everything, decode everything, report every problem with its file and row."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sensorium.core.errors import SensoriumError
from sensorium.core.progress import progress
from sensorium.data.loader import make_example
from sensorium.data.source import Source, place_of, read_row
from sensorium.processing.processor import Processor
from sensorium.processing.taken import SHIPPED, not_made


@dataclass(slots=True)
class CheckReport:
    """What was found."""

    rows: int = 0
    problems: list[str] = field(default_factory=list[str])
    lengths: list[int] = field(default_factory=list[int])
    """Of good rows, before any cut: what `max_length` is chosen by."""
    truncated: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """(place, tokens lost) of rows that `max_length` cuts."""
    media: dict[str, int] = field(default_factory=dict[str, int])
    without_answer: int = 0
    notes: list[str] = field(default_factory=list[str])
    """What the source leaves out without its being wrong."""

    def to_json(self) -> dict[str, Any]:
        ordered = sorted(self.lengths)
        return {
            "rows": self.rows,
            "good_rows": len(self.lengths),
            "problems": self.problems,
            "notes": self.notes,
            "media": self.media,
            "rows_without_answer": self.without_answer,
            "tokens": {
                "total": sum(ordered),
                "min": ordered[0] if ordered else 0,
                "median": ordered[len(ordered) // 2] if ordered else 0,
                "p95": ordered[int(len(ordered) * 0.95)] if ordered else 0,
                "max": ordered[-1] if ordered else 0,
            },
            "histogram": histogram(ordered),
            "truncated": [{"where": w, "tokens_lost": n} for w, n in self.truncated],
        }


@dataclass(frozen=True, slots=True)
class _Look:
    """What one row is: a problem, or an Example's measures."""

    where: str
    problem: str | None = None
    length: int = 0
    lost: int = 0
    kinds: tuple[str, ...] = ()
    answered: bool = False
    spoken: bool = False
    """Whether it holds an answer as speech beside its words."""
    not_made: tuple[str, ...] = ()
    """Kinds of media in its answers that the model reads there, and does not learn to make."""


def check_source(
    source: Source, processor: Processor, *, max_length: int, workers: int | None = None
) -> CheckReport:
    """Encode every row as training would.

    Nothing stops the check: a bad row becomes a line in `problems`.

    Args:
        workers: threads that decode; None: one for each processor.
    """
    report, found = CheckReport(rows=len(source), notes=list(getattr(source, "notes", ()))), Counter[str]()
    title = f"checking {source.name}" + "".join(f" ({note})" for note in report.notes)

    def look(row: int) -> _Look:
        return _look(source, row, processor, max_length)

    with ThreadPoolExecutor(workers or usable_cpus()) as pool, progress(title, len(source)) as meter:
        for done, seen in enumerate(pool.map(look, range(len(source))), start=1):
            if seen.problem is not None:
                report.problems.append(seen.problem)
            else:
                _add(report, seen)
                found.update([*(["speech"] if seen.spoken else []), *seen.not_made])
            meter.update(done, f"{len(report.problems)} problems")
    report.notes += _notes(found)
    return report


def _notes(found: Counter[str]) -> Iterator[str]:
    """What good rows hold that nothing is learned from, by kind and number of rows."""
    for kind, count in sorted(found.items()):
        rows = "1 row holds" if count == 1 else f"{count} rows hold"
        if kind == "speech":
            yield f"{rows} an answer as speech, too, which is left out: it says what is there already"
            continue
        other = f"; who makes it: {SHIPPED[kind]}" if kind in SHIPPED else ""
        yield f"{rows} an answer with {kind}, which this model reads and does not learn to make{other}"


def _look(source: Source, row: int, processor: Processor, max_length: int) -> _Look:
    where = place_of(source, row)
    try:
        sample = read_row(source, row)
        example = make_example(processor, sample, where)
        length, lost = len(example), 0
        if length > max_length:
            # Training may refuse what is left, and it drops a picture whole: only the cut
            # itself tells.
            example = make_example(processor, sample, where, max_length=max_length)
            lost = example.truncated_tokens
    except SensoriumError as error:
        return _Look(where, str(error))
    kinds = tuple(part.type for part in sample.media())
    others = tuple(not_made(sample, processor.makes))
    return _Look(where, None, length, lost, kinds, any(example.learn), sample.silent is not sample, others)


def _add(report: CheckReport, seen: _Look) -> None:
    report.lengths.append(seen.length)
    report.without_answer += not seen.answered
    for kind in seen.kinds:
        report.media[kind] = report.media.get(kind, 0) + 1
    if seen.lost:
        report.truncated.append((seen.where, seen.lost))


def usable_cpus() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def histogram(ordered: Sequence[int], bins: int = 10) -> list[dict[str, int]]:
    """Counts of lengths in equal bins."""
    if not ordered:
        return []
    low, high = ordered[0], ordered[-1]
    width = max(1, -(-(high - low + 1) // bins))
    counts = [0] * bins
    for length in ordered:
        counts[min(bins - 1, (length - low) // width)] += 1
    return [
        {"from": low + i * width, "to": low + (i + 1) * width - 1, "rows": n}
        for i, n in enumerate(counts)
        if low + i * width <= high
    ]

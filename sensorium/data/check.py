"""Read everything, decode everything, report every problem with its file and row."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sensorium.core.errors import SensoriumError
from sensorium.core.progress import progress
from sensorium.data.source import Source
from sensorium.processing.processor import Processor


@dataclass(slots=True)
class CheckReport:
    """What was found."""

    rows: int = 0
    problems: list[str] = field(default_factory=list[str])
    lengths: list[int] = field(default_factory=list[int])
    truncated: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """(place, tokens too many) of rows that `max_length` would cut."""
    media: dict[str, int] = field(default_factory=dict[str, int])
    without_answer: int = 0

    def to_json(self) -> dict[str, Any]:
        ordered = sorted(self.lengths)
        return {
            "rows": self.rows,
            "good_rows": len(self.lengths),
            "problems": self.problems,
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


def check_source(
    source: Source, processor: Processor, *, max_length: int, workers: int = 2
) -> CheckReport:
    """Encode every row as training would.

    Nothing stops the check: a bad row becomes a line in `problems`.
    """
    report = CheckReport(rows=len(source))

    def look(index: int) -> tuple[str | None, int, int, dict[str, int], bool]:
        place = getattr(source, "where", lambda i: f"row {i + 1}")(index)
        try:
            sample = source[index]
            example = processor.encode(sample)
        except SensoriumError as error:
            text = str(error)
            return (text if place in text else f"{place}: {text}"), 0, index, {}, False
        kinds: dict[str, int] = {}
        for part in sample.media():
            kinds[part.type] = kinds.get(part.type, 0) + 1
        return None, len(example), index, kinds, any(example.learn)

    with ThreadPoolExecutor(workers) as pool, progress(f"checking {source.name}", len(source)) as meter:
        for done, (problem, length, index, kinds, answered) in enumerate(
            pool.map(look, range(len(source))), start=1
        ):
            meter.update(done, f"{len(report.problems)} problems")
            if problem is not None:
                report.problems.append(problem)
                continue
            report.lengths.append(length)
            report.without_answer += not answered
            for kind, count in kinds.items():
                report.media[kind] = report.media.get(kind, 0) + count
            if length > max_length:
                place = getattr(source, "where", lambda i: f"row {i + 1}")(index)
                report.truncated.append((place, length - max_length))
    return report


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

"""Run benchmarks on a responder, always beside a blind and a constant baseline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sensorium.core.progress import progress
from sensorium.core.responder import Answer, Request, Responder
from sensorium.evaluation.benchmarks.base import BenchmarkConfig, Item
from sensorium.evaluation.metrics.interval import wilson

CHUNK = 16


@dataclass(slots=True)
class Result:
    """One benchmark's scores and the answers behind them."""

    benchmark: BenchmarkConfig
    items: list[Item]
    answers: dict[str, list[Answer]]
    """`model`, `blind`, `constant`, and who else the benchmark asks."""
    scores: dict[str, dict[str, float]]
    seconds: float
    answering_s: dict[str, float]
    """How long each took over the answers."""
    sheets: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the benchmark says of the pictures that it wrote beside the report, if it did."""

    def interval(self, who: str) -> tuple[float, float]:
        """95 % interval of the headline score."""
        count = self.benchmark.counted(self.items)
        return wilson(self.headline(who) * count, count)

    def groups(self) -> dict[str, int]:
        """Scores under the headline, and the number of questions of each."""
        return self.benchmark.groups(self.items)

    def group_interval(self, who: str, group: str) -> tuple[float, float]:
        """95 % interval of one of `groups`."""
        count = self.groups()[group]
        return wilson(self.scores[who][group] * count, count)

    def headline(self, who: str) -> float:
        return self.scores[who][self.benchmark.headline]

    def to_json(self) -> dict[str, Any]:
        rows = [
            {
                "id": item.request.id,
                "question": item.request.messages[-1].text,
                "gold": list(item.gold),
                "right": self.benchmark.right(item, self.answers["model"][i]),
                **{who: answers[i].text for who, answers in self.answers.items()},
            }
            for i, item in enumerate(self.items)
        ]
        beside = self.benchmark.beside
        numbers = [name for names in beside.values() for name in names if not self.benchmark.is_share(name)]
        groups = {
            group: {"items": count, "interval_95": {who: list(self.group_interval(who, group)) for who in self.scores}}
            for group, count in self.groups().items()
        }
        return {
            "benchmark": self.benchmark.to_dict(),
            "items": len(self.items),
            "counted": self.benchmark.counted(self.items),
            "headline": self.benchmark.headline,
            **({"beside": beside} if beside else {}),
            **({"no_shares": numbers} if numbers else {}),
            **({"groups": groups} if groups else {}),
            "scores": self.scores,
            "interval_95": {who: list(self.interval(who)) for who in self.scores},
            "seconds": round(self.seconds, 2),
            "answering_s": {who: round(seconds, 2) for who, seconds in self.answering_s.items()},
            **({"sheets": self.sheets} if self.sheets else {}),
            "rows": rows,
        }


def run_benchmark(benchmark: BenchmarkConfig, responder: Responder) -> Result:
    """Ask everything of each of the benchmark's people: mostly the model with pictures, without, and a constant."""
    items = benchmark.items()
    # What a benchmark does not look at is not made, which may take minutes for each answer.
    requests = [replace(item.request, makes=benchmark.looks_at) for item in items]
    started = time.monotonic()
    answers: dict[str, list[Answer]] = {}
    answering_s: dict[str, float] = {}
    for who, someone in benchmark.people(responder).items():
        begun = time.monotonic()
        answers[who] = _ask(requests, someone, f"{benchmark.kind} ({who})")
        answering_s[who] = time.monotonic() - begun
    scores = {who: benchmark.scores(items, given) for who, given in answers.items()}
    scores["model"] |= benchmark.measures(responder)
    return Result(benchmark, items, answers, scores, time.monotonic() - started, answering_s)


def _ask(requests: Sequence[Request], responder: Responder, title: str) -> list[Answer]:
    answers: list[Answer] = []
    with progress(title, len(requests)) as meter:
        for start in range(0, len(requests), CHUNK):
            answers.extend(responder.respond(requests[start : start + CHUNK]))
            meter.update(len(answers))
    return answers

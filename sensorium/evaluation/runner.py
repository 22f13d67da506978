"""Run benchmarks on a responder, always beside a blind and a constant baseline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sensorium.core.progress import progress
from sensorium.core.responder import Answer, Blind, Constant, Responder
from sensorium.evaluation.benchmarks.base import BenchmarkConfig, Item
from sensorium.evaluation.metrics.interval import wilson

CHUNK = 16


@dataclass(slots=True)
class Result:
    """One benchmark's scores and the answers behind them."""

    benchmark: BenchmarkConfig
    items: list[Item]
    answers: dict[str, list[Answer]]
    """`model`, `blind`, `constant`."""
    scores: dict[str, dict[str, float]]
    seconds: float

    def interval(self, who: str) -> tuple[float, float]:
        """95 % interval of the headline score."""
        count = self.benchmark.counted(self.items)
        return wilson(self.headline(who) * count, count)

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
        return {
            "benchmark": self.benchmark.to_dict(),
            "items": len(self.items),
            "headline": self.benchmark.headline,
            "scores": self.scores,
            "interval_95": {who: list(self.interval(who)) for who in self.scores},
            "seconds": round(self.seconds, 2),
            "rows": rows,
        }


def run_benchmark(benchmark: BenchmarkConfig, responder: Responder) -> Result:
    """Ask everything three times: with pictures, without, and a constant."""
    items = benchmark.items()
    started = time.monotonic()
    people: dict[str, Responder] = {
        "model": responder,
        "blind": Blind(responder),
        "constant": Constant(benchmark.constant),
    }
    answers = {
        who: _ask(items, someone, f"{benchmark.kind} ({who})") for who, someone in people.items()
    }
    scores = {who: benchmark.scores(items, given) for who, given in answers.items()}
    return Result(benchmark, items, answers, scores, time.monotonic() - started)


def _ask(items: Sequence[Item], responder: Responder, title: str) -> list[Answer]:
    answers: list[Answer] = []
    with progress(title, len(items)) as meter:
        for start in range(0, len(items), CHUNK):
            requests = [item.request for item in items[start : start + CHUNK]]
            answers.extend(responder.respond(requests))
            meter.update(len(answers))
    return answers

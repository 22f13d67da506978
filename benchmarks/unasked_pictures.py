"""How often a model that draws or finds pictures makes one where none was asked for.

    python benchmarks/unasked_pictures.py [--models nano-draws nano-finds nano-chooses] [--benchmarks naming existence] [--limit 80]

The questions, which want words, are those that `sensorium eval naming existence --limit 80` asks. An answer is false where it holds
a picture, or says that one was wanted which could not be made (by a finder without an index). `rate` has a 95 % Wilson interval.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from sensorium.api import load
from sensorium.cli.evaluating import parse_benchmarks
from sensorium.core.responder import Answer, Request, Responder
from sensorium.core.sample import MISSING
from sensorium.evaluation.metrics.interval import wilson


def holds_a_picture(answer: Answer) -> bool:
    """Whether it made one, or would have."""
    return any(part.type == "image" or (part.type == MISSING and part.value["kind"] == "image") for part in answer.parts)


def false_pictures(responder: Responder, requests: Sequence[Request]) -> dict[str, Any]:
    """Of questions that want words: how many were answered with pictures."""
    return rate(sum(holds_a_picture(answer) for answer in responder.respond(requests)), len(requests))


def rate(pictures: int, questions: int) -> dict[str, Any]:
    low, high = wilson(pictures, questions)
    return {"pictures": pictures, "questions": questions, "rate": round(pictures / questions, 4), "interval_95": [round(low, 4), round(high, 4)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["nano-draws", "nano-finds", "nano-chooses"])
    parser.add_argument("--benchmarks", nargs="+", default=["naming", "existence"])
    parser.add_argument("--limit", type=int, default=80)
    options = parser.parse_args()
    benchmarks = parse_benchmarks(options.benchmarks, options.limit)
    asked = {benchmark.kind: [item.request for item in benchmark.items()] for benchmark in benchmarks}
    result: dict[str, Any] = {}
    for name in options.models:
        responder = load(name, "cpu").responder
        by_kind = {kind: false_pictures(responder, requests) for kind, requests in asked.items()}
        pictures, questions = (sum(found[key] for found in by_kind.values()) for key in ("pictures", "questions"))
        result[name] = by_kind | {"all": rate(pictures, questions)}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

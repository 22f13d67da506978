"""Does a model that draws, finds and writes do what a request wants?

    python benchmarks/wishes.py [--models nano-chooses nano-draws nano-finds] [--limit 120]

So many requests of each kind, in wordings (`sensorium/data/wordings.py`, NEW_...) and about names and pairs that no request of training asks for (scenes, a tenth, are drawn anew): to draw something, to
find a picture of it, and questions that want words, half of which stand behind a picture (`sensorium eval naming existence`). Which way a model goes is
seen end to end: what would draw, and what would find, are stand-ins that leave a mark; `lost` are answers whose picture could not be made, `several` those with more than one. Each share
has a 95 % Wilson interval. Beside the models stands a rule that knows single words alone: naive Bayes over the words of 4,000 training requests,
which has no picture to go by (`words`).
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sensorium.api import Model, load
from sensorium.cli.evaluating import parse_benchmarks
from sensorium.core.hands import Made, Making
from sensorium.core.responder import Answer, Request
from sensorium.core.sample import Message
from sensorium.data.wishes import WishesSource
from sensorium.evaluation.metrics.interval import wilson

KINDS = ("draw", "find", "write")
MARKS = {"draw": 40, "find": 200}
WANTS = {"first": "draw", "other": "find"}
ANSWER_TOKENS = 12
TRAINING = 4000


class Marks:
    """A generator that leaves a mark in place of a medium."""

    def __init__(self, way: str) -> None:
        self.way = way

    def generate(self, condition_BLC: Any, *, negative_BLC: Any = None, making: Making = Making()) -> list[Made]:
        """One for each item of the condition."""
        return [Made("image", np.full((1, 1, 3), MARKS[self.way], np.uint8)) for _ in condition_BLC]


def asked(limit: int) -> list[tuple[str, Request]]:
    """Requests with what they want, `limit` of each kind."""
    source = WishesSource(split="heldout", words=1 / 3, count=100 * limit).open()
    left = {"draw": limit, "find": limit, "write": limit - limit // 2}
    found: list[tuple[str, Request]] = []
    for index in range(len(source)):
        sample = source[index]
        kind = wanted(sample.messages[-1])
        if left[kind]:
            left[kind] -= 1
            found.append((kind, Request(f"{kind}/{left[kind]}", sample.messages[:1], ANSWER_TOKENS)))
        if not any(left.values()):
            break
    behind = [item.request for benchmark in parse_benchmarks(["naming", "existence"], math.ceil(limit / 4)) for item in benchmark.items()]
    return found + [("write", one) for one in behind[: limit // 2]]


def wanted(answer: Message) -> str:
    """The kind of a Sample's answer."""
    part = answer.content[0]
    return WANTS[part.value["way"]] if part.type == "image" else "write"


def done(model: Model, requests: Sequence[Request]) -> list[str]:
    """What a model does for each."""
    network = model.network
    for name, way in network.config.ways.items():
        network.generators.put(name, Marks("find" if way.generator.needs_folder else "draw"))
    return [way_of(answer) for answer in model.responder.respond(requests)]


def way_of(answer: Answer) -> str:
    """The way that an answer's picture came; `write`: there is none."""
    pictures = [part for part in answer.parts if part.type in ("image", "missing")]
    if not pictures:
        return "write"
    if len(pictures) > 1:
        return "several"
    if pictures[0].type == "missing":
        return "lost"
    mark = int(np.asarray(pictures[0].value)[0, 0, 0])
    return next(way for way, value in MARKS.items() if value == mark)


def by_words(requests: Sequence[Request]) -> list[str]:
    """What naive Bayes over words takes each request for."""
    source = WishesSource(words=1 / 3, count=TRAINING).open()
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for index in range(TRAINING):
        messages = source[index].messages
        counts[wanted(messages[-1])].update(words_of(messages[0]))
    known = set().union(*counts.values())

    def score(kind: str, message: Message) -> float:
        total = counts[kind].total() + len(known)
        return sum(math.log((counts[kind][word] + 1) / total) for word in words_of(message) if word in known)

    return [max(KINDS, key=lambda kind: score(kind, request.messages[-1])) for request in requests]


def words_of(message: Message) -> list[str]:
    return re.findall(r"[a-z]+", message.text.lower())


def table(rows: Sequence[tuple[str, str, Request]]) -> dict[str, Any]:
    """What was done for requests of each kind, and which went wrong.

    Args:
        rows: what was wanted, what was done, the request.
    """
    out: dict[str, Any] = {"right": share(sum(kind == way for kind, way, _ in rows), len(rows))}
    for kind in KINDS:
        ways = Counter(way for wants, way, _ in rows if wants == kind)
        out[kind] = {way: share(count, ways.total()) for way, count in sorted(ways.items())}
    out["wrong"] = [f"{kind} -> {way}: {request.messages[-1].text}" for kind, way, request in rows if kind != way]
    return out


def share(count: int, of: int) -> dict[str, Any]:
    low, high = wilson(count, of)
    return {"count": count, "of": of, "share": round(count / of, 4), "interval_95": [round(low, 4), round(high, 4)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["nano-chooses", "nano-draws", "nano-finds"])
    parser.add_argument("--limit", type=int, default=120, help="requests of each kind")
    options = parser.parse_args()
    kinds, requests = zip(*asked(options.limit), strict=True)
    answers: Mapping[str, Sequence[str]] = {"words": by_words(requests)} | {name: done(load(name, "cpu"), requests) for name in options.models}
    print(json.dumps({name: table(list(zip(kinds, ways, requests, strict=True))) for name, ways in answers.items()}, indent=1))


if __name__ == "__main__":
    main()

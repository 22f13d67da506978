"""Naming: say what a held-out picture shows; any accepted name counts.

The split sees to it that another picture of the same thing is in training; near-duplicates
of a held-out picture are not.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

from sensorium.core.responder import Answer
from sensorium.data.picture_book.instruct import NAMING, SHORT
from sensorium.evaluation.benchmarks.base import Item, question
from sensorium.evaluation.benchmarks.book import BookBenchmark
from sensorium.evaluation.metrics.answers import names


class Naming(BookBenchmark):
    """`What is this? Answer with one word or a short phrase.`"""

    kind: Literal["naming"] = "naming"

    @property
    def constant(self) -> str:
        # The answer that most training pictures would accept, whatever they are called.
        entries = self.catalogue().entries
        accepted = Counter(name for e in entries for name in dict.fromkeys(e["accepted"]))
        return accepted.most_common(1)[0][0]

    def items(self) -> list[Item]:
        # The split sees to it that every held-out picture has the name of a training picture.
        known = tuple(sorted({name for e in self.catalogue().entries for name in e["accepted"]}))
        return [
            Item(
                question(e["id"], e["image"], NAMING[0] + SHORT, root=self.folder(), choices=known),
                tuple(e["accepted"]),
                (e["style"],),
            )
            for e in self.heldout()
        ]

    def right(self, item: Item, answer: Answer) -> bool:
        return names(answer.text, item.gold)

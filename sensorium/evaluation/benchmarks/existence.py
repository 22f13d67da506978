"""Existence: is a named thing in the held-out picture? Balanced, half hard negatives.

POPE's question (arXiv:2305.10355) on our pictures.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from sensorium.core.hashing import stable_int
from sensorium.core.responder import Answer
from sensorium.data.picture_book.instruct import (
    EXISTENCE,
    YES_NO,
    absent_name,
    present_name,
    with_article,
)
from sensorium.evaluation.benchmarks.base import Item, question
from sensorium.evaluation.benchmarks.book import BookBenchmark
from sensorium.evaluation.metrics.answers import yes_no
from sensorium.evaluation.metrics.binary import binary_scores


class Existence(BookBenchmark):
    """Two questions a picture: one about what is there, one about what is not."""

    kind: Literal["existence"] = "existence"

    @property
    def headline(self) -> str:
        return "balanced_accuracy"

    def items(self) -> list[Item]:
        catalogue = self.catalogue()
        items: list[Item] = []
        for number, entry in enumerate(self.heldout()):
            rng = random.Random(stable_int("existence", self.seed, entry["id"]))
            hard = number % 2 == 0
            asked = {
                "yes": present_name(entry, rng),
                "no": absent_name(entry, catalogue, rng, hard=hard),
            }
            for gold, name in asked.items():
                text = EXISTENCE[0].format(a=with_article(name)) + YES_NO
                tags = () if gold == "yes" else (("hard_negative",) if hard else ("easy_negative",))
                identity = f"{entry['id']}#{gold}"
                items.append(
                    Item(question(identity, entry["image"], text, root=self.folder(),
                                  max_tokens=8), (gold,), tags)
                )  # fmt: skip
        return items

    def right(self, item: Item, answer: Answer) -> bool:
        return yes_no(answer.text) == item.gold[0]

    def scores(self, items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, float]:
        gold = [item.gold[0] for item in items]
        return super().scores(items, answers) | binary_scores([yes_no(a.text) for a in answers], gold)

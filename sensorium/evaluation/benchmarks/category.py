"""Category: which of sixteen kinds of thing a held-out picture shows."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from sensorium.core.responder import Answer
from sensorium.data.picture_book.categories import CATEGORIES
from sensorium.data.picture_book.instruct import CATEGORY
from sensorium.evaluation.benchmarks.base import Item, question
from sensorium.evaluation.benchmarks.book import BookBenchmark
from sensorium.evaluation.metrics.answers import words


class Category(BookBenchmark):
    """All categories are listed in the question; the answer must be the right one."""

    kind: Literal["category"] = "category"

    @property
    def constant(self) -> str:
        # A small limit may leave none that has a category; any word will do then.
        found = Counter(e["category"] for e in self.heldout() if e["category"])
        return found.most_common(1)[0][0] if found else CATEGORIES[0]

    def items(self) -> list[Item]:
        asked = f"{CATEGORY[0]} Choose one of: {', '.join(CATEGORIES)}."
        return [
            Item(question(e["id"], e["image"], asked, root=self.folder(), choices=CATEGORIES), (e["category"],))
            for e in self.heldout()
            if e["category"]
        ]

    def right(self, item: Item, answer: Answer) -> bool:
        # Exactly one category named, and the right one: a list of all would prove nothing.
        return words(answer.text) == words(item.gold[0])

"""Your own questions: a file of Samples whose last assistant turn is the gold answer.

More accepted answers may stand in `meta.accepted`, or as the several `answers` of a Sample.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal, get_args

from sensorium.core.choices import read_choices
from sensorium.core.errors import DataError
from sensorium.core.hands import MadeKind
from sensorium.core.responder import Answer, Request
from sensorium.data.formats import open_path
from sensorium.evaluation.benchmarks.base import BenchmarkConfig, Item, spread
from sensorium.evaluation.metrics.answers import names


class VqaFile(BenchmarkConfig):
    """Accepted-answer match over any data that can be imported."""

    kind: Literal["vqa_file"] = "vqa_file"
    path: str
    format: str = "auto"
    max_tokens: int = 24
    choices: str | None = None
    """A file of answers, for who chooses: one a line, or a JSON list."""

    shows: bool = False
    """Whether the media that answers ask for are made, to be looked at in the report; scores are of the text alone."""

    @property
    def looks_at(self) -> frozenset[MadeKind]:
        return frozenset(get_args(MadeKind)) if self.shows else frozenset()

    @property
    def constant(self) -> str:
        return Counter(item.gold[0] for item in self.items()).most_common(1)[0][0]

    def items(self) -> list[Item]:
        source = open_path(Path(self.path), self.format)
        if not len(source):
            raise DataError("no rows", where=self.path)
        choices = read_choices(self.choices) if self.choices else ()
        items: list[Item] = []
        for index in spread(list(range(len(source))), self.limit):
            sample = source[index]
            if len(sample.messages) < 2 or sample.messages[-1].role != "assistant":
                raise DataError(
                    f"row {index + 1} does not end with an assistant turn, the gold answer",
                    where=self.path,
                )
            accepted = sample.meta.get("accepted", ())
            more = (accepted,) if isinstance(accepted, str) else tuple(accepted)
            gold = (sample.messages[-1].text, *(a.text for a in sample.answers), *more)
            asked = sample.conversations()[-1][:-1]
            request = Request(sample.id or str(index), asked, self.max_tokens, sample.root, choices)
            items.append(Item(request, gold))
        return items

    def right(self, item: Item, answer: Answer) -> bool:
        return names(answer.text, item.gold)

"""What every benchmark answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image as PILImage
from pydantic import ValidationInfo, field_validator

from sensorium.core.config import Config
from sensorium.core.errors import ConfigError
from sensorium.core.hands import MadeKind
from sensorium.core.responder import Answer, Blind, Constant, Request, Responder
from sensorium.core.sample import Message, Part
from sensorium.media.drawing import draw_marks, marks_of
from sensorium.media.image import load_image


@dataclass(frozen=True, slots=True)
class Item:
    """One question with what counts as right."""

    request: Request
    gold: tuple[str, ...]
    tags: tuple[str, ...] = ()
    """Sub-groups that get a score of their own."""


class BenchmarkConfig(Config):
    """Makes items and scores answers; `version` changes when scores would."""

    kind: str
    version: int = 1
    limit: int | None = None
    """Questions, or pictures where each has several; None: all."""

    @field_validator("limit", "count", check_fields=False)
    @classmethod
    def _at_least_one(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value < 1:
            raise ConfigError(
                f"{info.field_name} {value}",
                expected="at least 1",
                where=f"benchmark {cls.__name__}",
                fix="leave it out for the benchmark's own number",
            )
        return value

    @property
    def headline(self) -> str:
        """The score that stands for the benchmark."""
        return "accuracy"

    @property
    def beside(self) -> dict[str, tuple[str, ...]]:
        """Lines of the printed table under the headline: what each is called, and the scores that it shows.

        The last one's interval is shown, too, where there are scores `..._from` and `..._to`.
        """
        return {}

    def groups(self, items: Sequence[Item]) -> dict[str, int]:
        """Scores that stand under the headline for everybody who answers, each with the number of questions that it is a share of."""
        del items
        return {}

    @property
    def constant(self) -> str:
        """The best answer that ignores the question."""
        return "yes"

    @property
    def looks_at(self) -> frozenset[MadeKind]:
        """The kinds of made media that scores look at; others are not made for it, by nobody, and text is the same without them."""
        return frozenset()

    def people(self, responder: Responder) -> dict[str, Responder]:
        """Who answers: the model, the same without pictures, and the constant."""
        return {"model": responder, "blind": Blind(responder), "constant": Constant(self.constant)}

    def measures(self, responder: Responder) -> dict[str, float]:
        """Further scores of the model, of which no answer tells."""
        del responder
        return {}

    def is_share(self, score: str) -> bool:
        """Whether a score is a share of one."""
        del score
        return True

    def sheets(self, items: Sequence[Item], answers: Sequence[Answer], folder: Path) -> dict[str, Any]:
        """Write pictures to look at, where there are any; what there is to say of them, sentences for people as `said`."""
        del items, answers, folder
        return {}

    def items(self) -> list[Item]:
        """All questions, always in the same order."""
        raise TypeError(f"{type(self).__name__} does not define items()")

    def right(self, item: Item, answer: Answer) -> bool:
        """Whether one answer is right."""
        raise TypeError(f"{type(self).__name__} does not define right()")

    def counted(self, items: Sequence[Item]) -> int:
        """How many questions the headline is a share of."""
        return len(items)

    def drawn(self, item: Item, answer: Answer, picture: PILImage.Image) -> PILImage.Image:
        """The picture as the report shows it beside an answer: with what that points at."""
        del item
        marks = marks_of(answer.parts)
        return draw_marks(load_image(picture), marks).to_pil() if marks else picture

    def scores(self, items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, float]:
        """Accuracy, and accuracy by tag."""
        marks = [self.right(i, a) for i, a in zip(items, answers, strict=True)]
        out = {"accuracy": sum(marks) / len(marks) if marks else 0.0}
        for tag in sorted({t for item in items for t in item.tags}):
            mine = [m for m, item in zip(marks, items, strict=True) if tag in item.tags]
            out[tag] = sum(mine) / len(mine)
        return out


def question(
    identity: str, image: Any, text: str, *, root: Path | None = None, max_tokens: int = 24,
    choices: tuple[str, ...] = (),
) -> Request:  # fmt: skip
    """A picture and a question."""
    message = Message("user", (Part("image", image), Part("text", text)))
    return Request(identity, (message,), max_tokens, root, choices)


def spread(rows: list[Any], limit: int | None) -> list[Any]:
    """At most `limit` rows, evenly spread."""
    if limit is None or len(rows) <= limit:
        return rows
    return [rows[int(i * len(rows) / limit)] for i in range(limit)]

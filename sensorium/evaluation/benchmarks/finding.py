"""Finding: of 1,000 held-out pictures, the one that is described.

The gallery holds the held-out pictures of picture-book, of drawing-book (a style of emoji that training never sees),
synthetic scenes and composites of held-out cut-outs, from seeds that training never uses, mixed. Each picture is asked for by its own description. Where
the description is true of others too, any of them is right (`recall_10`: one of them is among the first ten);
`own_recall_10` wants the very picture that it was written for. Of a scene or composite a description is true if it names all
that is shown, so that those that hold a described thing among others are wrong.

Beside the model's stand what chance would find (`chance_...`), and histograms of colours that are mapped to bags of
words by ridge regression on training pictures (`colours_...`); and colours by their names alone, which nothing is
learnt for (`colour_words_...`). Each recall, theirs too, has its 95 % Wilson interval (`..._from`, `..._to`).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from sensorium.core.errors import DataError
from sensorium.core.hashing import stable_int
from sensorium.core.responder import Answer, Request
from sensorium.core.sample import Message, Part
from sensorium.data.picture_book import place
from sensorium.data.sought import FORMS, Sought, composite_maker, sought_in_book, sought_scene
from sensorium.evaluation.benchmarks.base import BenchmarkConfig, Item, spread
from sensorium.evaluation.colours import Colours, Described, ranked_by_names
from sensorium.evaluation.metrics.interval import wilson

DRAWN = 0.15
"""Of the gallery are scenes, and as many composites."""
BOOK = 0.25
"""At most, where drawing-book is there."""
FIRST = (1, 5, 10)
TRAINING_DRAWN = 300
"""Scenes, and composites, from which the colours learn, and every so many-th picture of the books:"""
TRAINING_STEP = 3


class FindingBenchmark(BenchmarkConfig):
    """As many questions as pictures; with `limit` fewer questions to all of the pictures: fewer pictures would be easier."""

    kind: Literal["finding"] = "finding"
    version: int = 2
    """1: `limit` took pictures away, too."""
    part: place.Part = "best"
    drawings: bool | None = None
    """Whether drawing-book's held-out pictures are in the gallery; None: if it has been built."""
    seed: int = 900_031
    """Training never uses it."""
    count: int = 1000
    colours: bool = True
    """Whether the baselines of colours are measured, which takes half a minute."""

    @property
    def headline(self) -> str:
        return "recall_10"

    @property
    def constant(self) -> str:
        return " ".join(map(str, range(max(FIRST))))

    @property
    def beside(self) -> dict[str, tuple[str, ...]]:
        lines = {"recall 1 / 5 / 10": "", "colour words alone": "colour_words_", "colours, learnt": "colours_", "chance": "chance_"}
        return {name: tuple(f"{who}recall_{first}" for first in FIRST) for name, who in lines.items()}

    @property
    def gallery(self) -> tuple[tuple[str, Sought], ...]:
        """The pictures with their kinds, in the order of their numbers."""
        return _gallery(self.part, _with_drawings(self.drawings), self.seed, self.count)

    def items(self) -> list[Item]:
        gallery = self.gallery
        pictures = tuple(one.picture() for _, one in gallery)
        items: list[Item] = []
        for number in spread(list(range(len(gallery))), self.limit):
            kind, one = gallery[number]
            right = [other for other, (_, it) in enumerate(gallery) if other != number and one.meaning in it.true]
            request = Request(one.identity, (Message("user", (Part("text", FORMS[0].format(one.text)),)),), 0, pictures=pictures)
            items.append(Item(request, tuple(map(str, [number, *right])), (kind,)))
        return items

    def right(self, item: Item, answer: Answer) -> bool:
        return _among(answer, item.gold, max(FIRST))

    def scores(self, items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, float]:
        scores: dict[str, float] = {}
        for first in FIRST:
            marks = [_among(a, item.gold, first) for item, a in zip(items, answers, strict=True)]
            scores |= _recall("", first, marks)
            scores[f"own_recall_{first}"] = _mean([_among(a, item.gold[:1], first) for item, a in zip(items, answers, strict=True)])
            scores |= _recall("chance_", first, [_chance(self.count, len(item.gold), first) for item in items])
        for tag in sorted({tag for item in items for tag in item.tags}):
            scores[f"recall_10_{tag}"] = _mean([self.right(i, a) for i, a in zip(items, answers, strict=True) if tag in i.tags])
        scores["several_right"] = _mean([len(item.gold) > 1 for item in items])
        if self.colours:
            about = (self.part, _with_drawings(self.drawings), self.seed, self.count)
            for name, found in (("colours", _by_colours(*about)), ("colour_words", _by_colour_words(*about))):
                for first in FIRST:
                    scores |= _recall(f"{name}_", first, [_among(found[int(item.gold[0])], item.gold, first) for item in items])
        return scores


def _recall(who: str, first: int, marks: Sequence[float]) -> dict[str, float]:
    """A mean with its 95 % interval; of chance, whose marks are probabilities, that of a blind search of as many questions."""
    name = f"{who}recall_{first}"
    low, high = wilson(sum(marks), len(marks))
    return {name: _mean(marks), f"{name}_from": low, f"{name}_to": high}


def _among(answer: Answer, gold: Sequence[str], first: int) -> bool:
    """Whether one of the right numbers is among the first that are named."""
    return not set(re.findall(r"\d+", answer.text)[:first]).isdisjoint(gold)


def _chance(pictures: int, right: int, first: int) -> float:
    """Of finding one of the right pictures among so many drawn blindly."""
    first = min(first, pictures)
    return 1 - math.comb(pictures - right, first) / math.comb(pictures, first)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _with_drawings(asked: bool | None) -> bool:
    if asked is not None:
        return asked
    try:
        place.book_folder("drawings")
    except DataError:
        return False
    return True


@lru_cache(maxsize=2)
def _gallery(part: place.Part, drawings: bool, seed: int, count: int) -> tuple[tuple[str, Sought], ...]:
    drawn = round(DRAWN * count)
    left = count - 2 * drawn
    book = spread(sought_in_book(part, "heldout"), min(left, round(BOOK * count)) if drawings else left)
    emoji = spread(sought_in_book("drawings", "heldout"), left - len(book)) if drawings else []
    paste = composite_maker((part,), "heldout")
    found: list[tuple[str, Sought]] = [("book", one) for one in book] + [("emoji", one) for one in emoji]
    found += [("scenes", sought_scene(seed, index)) for index in range(drawn)]
    found += [("composites", paste(seed, index)) for index in range(drawn)]
    random.Random(stable_int("gallery", seed)).shuffle(found)
    return tuple(found)


@lru_cache(maxsize=2)
def _by_colours(part: place.Part, drawings: bool, seed: int, count: int) -> tuple[Answer, ...]:
    """What colours alone find."""
    books: tuple[place.Part, ...] = (part, "drawings") if drawings else (part,)
    known = [one for book in books for one in sought_in_book(book, "train")[::TRAINING_STEP]]
    paste = composite_maker(books, "train")
    few = min(TRAINING_DRAWN, count)
    known += [make(seed + 1, index) for make in (sought_scene, paste) for index in range(few)]
    gallery = [_described(one) for _, one in _gallery(part, drawings, seed, count)]
    colours = Colours.learnt([_described(one) for one in known])
    return tuple(Answer("", " ".join(map(str, row))) for row in colours.ranked(gallery, max(FIRST)))


@lru_cache(maxsize=2)
def _by_colour_words(part: place.Part, drawings: bool, seed: int, count: int) -> tuple[Answer, ...]:
    """What the names of colours find."""
    gallery = [_described(one) for _, one in _gallery(part, drawings, seed, count)]
    return tuple(Answer("", " ".join(map(str, row))) for row in ranked_by_names(gallery, max(FIRST)))


def _described(one: Sought) -> Described:
    picture: Any = one.picture()
    return Described(picture, one.text)

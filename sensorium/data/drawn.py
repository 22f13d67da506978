"""Requests to draw: coloured shapes, whose descriptions are exact, and things of the picture sets by their names.

Descriptions are few on purpose, and pictures many: what an LLM makes of a description is computed once
(`training/objectives/draw.py`). An eighth of the coloured shapes and a tenth of the names are never described in training.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image as PILImage
from pydantic import Field

from sensorium.core.hashing import stable_int
from sensorium.data.config import MadeSource, SourceConfig
from sensorium.data.picture_book.build import read_entries
from sensorium.data.picture_book.instruct import with_article
from sensorium.data.picture_book.place import Part, book_folder
from sensorium.data.scenes import COLORS, GROUNDS, SHAPES, Scene, Thing, draw_scene
from sensorium.data.shape_questions import question_about
from sensorium.data.source import Source
from sensorium.data.wordings import opened

Split = Literal["train", "heldout"]
_VERBS = ("draw", "paint", "make a drawing of", "show me", "create an image of", "illustrate", "paint a picture of", "design")
REQUESTS = (
    *opened(_VERBS),
    "I want a picture of {}.", "Give me an image of {}.", "May I have a painting of {}?", "I need {} drawn.", "Create a picture that shows {}.",
    "A drawing of {}.", "There should be {} in your picture.", "My wish is a painting with {}.",
)  # fmt: skip
NEW_REQUESTS = ("Could you draw {} for me?", "I would like a drawing of {}.", "Sketch {}.", "Draw me {}, please.")
"""Said in no training."""
NAMES = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)
HELD_NAMES = 10
"""One of so many."""
PAIR_TRIES = 40
SIDE_PX, OVERSAMPLE = 64, 4


def is_held(name: str) -> bool:
    """Whether this coloured shape is described in no training: the red square, and its like."""
    color, _, shape = name.partition(" ")
    # One of each colour, of all shapes in turn, so that every colour and every shape is among those described.
    return SHAPES.index(shape) == (3 * list(COLORS).index(color) + 1) % len(SHAPES)


@dataclass(frozen=True, slots=True)
class Described:
    """What is to be drawn, and a picture of it."""

    names: tuple[str, ...]
    """The coloured shapes."""
    scene: Scene

    @property
    def text(self) -> str:
        return " and ".join(with_article(name) for name in self.names)


def describe(rng: random.Random, names: Sequence[str]) -> Described:
    """Shapes of these names somewhere, not on one another; two are smaller than one."""
    things: list[Thing] = []
    for _ in range(100 * PAIR_TRIES):
        if len(things) == len(names):
            break
        color, _, shape = names[len(things)].partition(" ")
        half = rng.uniform(0.24, 0.4) if len(names) == 1 else rng.uniform(0.17, 0.25)
        x, y = rng.uniform(half, 1 - half), rng.uniform(half, 1 - half)
        if all(((x - t.x) ** 2 + (y - t.y) ** 2) ** 0.5 >= 1.1 * (half + t.half) for t in things):
            things.append(Thing(shape, color, x, y, half))
    return Described(tuple(names), Scene(tuple(things), rng.choice(GROUNDS)))


def draw(described: Described) -> PILImage.Image:
    """The picture, as small as drawers draw: a larger one would cost as much as a step of training does."""
    return draw_scene(described.scene, SIDE_PX, OVERSAMPLE)


def shape_names(split: Split) -> tuple[str, ...]:
    """The coloured shapes of a split."""
    return tuple(name for name in NAMES if is_held(name) == (split == "heldout"))


def shape_pairs(split: Split, count: int) -> list[tuple[str, str]]:
    """Pairs of training's shapes, of two colours and two shapes; those of a split are none of the other's."""
    names = shape_names("train")
    found: list[tuple[str, str]] = []
    for a in names:
        for b in names:
            apart = not set(a.split()) & set(b.split())
            if apart and (stable_int("pair", a, b) % 8 == 0) == (split == "heldout"):
                found.append((a, b))
    found.sort(key=lambda pair: stable_int("pair-order", *pair))
    return found[:count]


class Undrawn(PILImage.Image):
    """A picture that is drawn when its pixels are first asked for: rows are measured by its size alone, in every process that plans."""

    _described: Described | None = None

    @classmethod
    def of(cls, described: Described) -> Undrawn:
        made = cls()
        made._mode, made._size, made._described = "RGB", (SIDE_PX, SIDE_PX), described  # pyright: ignore[reportAttributeAccessIssue]
        return made

    def load(self) -> Any:
        """See PIL; whatever needs pixels asks this first."""
        if self._described is not None:
            described, self._described = self._described, None
            self.im = draw(described).im
        return super().load()


def drawing(identity: str, request: str, image: Any) -> dict[str, Any]:
    """A Sample's JSON: a request, and the picture for an answer."""
    return {"id": identity, "messages": [
        {"role": "user", "content": request},
        {"role": "assistant", "content": [{"type": "image", "image": image}]}]}  # fmt: skip


def asking(identity: str, question: str, answer: str) -> dict[str, Any]:
    """A Sample's JSON: a question, and words for an answer."""
    return {"id": identity, "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


class DrawnScenesSource(SourceConfig):
    """One or two coloured shapes, drawn when they are asked for."""

    kind: Literal["drawn_scenes"] = "drawn_scenes"
    seed: int = 41
    count: int = Field(default=40000, ge=1)
    """Rows; nothing is kept of them."""
    pairs: int = Field(default=300, ge=0)
    """So many descriptions of two shapes."""
    single: float = Field(default=0.6, ge=0.0, le=1.0)
    """Share of pictures with one shape."""
    requests: int = Field(default=2, ge=1, le=len(REQUESTS))
    """Ways of asking for one shape, of all `REQUESTS` others for each; two shapes are asked for in one way each."""
    words: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of rows that ask something about a shape which wants words, not a picture."""

    def open(self) -> Source:
        singles, pairs = shape_names("train"), shape_pairs("train", self.pairs)
        ways = {name: random.Random(stable_int("ways", name)).sample(REQUESTS, self.requests) for name in singles}

        def make(index: int) -> dict[str, Any]:
            rng = random.Random(stable_int("drawn", self.seed, index))
            if self.words and rng.random() < self.words:
                name = rng.choice(singles)
                return asking(f"asked/{self.seed}/{index}", *question_about(rng, name, with_article(name)))
            if not pairs or rng.random() < self.single:
                name = rng.choice(singles)
                described = describe(rng, [name])
                request = rng.choice(ways[name])
            else:
                pair = rng.choice(pairs)
                described = describe(rng, pair)
                request = REQUESTS[stable_int("pair-request", *pair) % len(REQUESTS)]
            return drawing(f"drawn/{self.seed}/{index}", request.format(described.text), Undrawn.of(described))

        return MadeSource("drawn scenes", self.count, make, None)


class DrawnBookSource(SourceConfig):
    """Pictures of the picture sets, asked for by name; names of a tenth are held out."""

    kind: Literal["drawn_book"] = "drawn_book"
    part: Part = "best"
    split: Split = "train"
    most: int = Field(default=100000, ge=1)
    """Only names that have a category, and of those the most frequent ones, so many."""

    def open(self) -> Source:
        folder = book_folder(self.part)
        chosen = named_entries(self.part, self.split, self.most)

        def make(index: int) -> dict[str, Any]:
            entry = chosen[index]
            request = REQUESTS[stable_int("book-request", entry["name"]) % len(REQUESTS)]
            return drawing(f"{entry['id']}#drawn", request.format(with_article(entry["name"])), entry["image"])

        return MadeSource("drawn pictures", len(chosen), make, folder)


def named_entries(part: Part, split: Split, most: int) -> list[dict[str, Any]]:
    """Entries of training pictures whose name is of a split, and among its `most` most frequent ones."""
    entries = [e for e in read_entries(book_folder(part)) if e["category"] and e["split"] == "train"]
    entries = [e for e in entries if (stable_int("drawn-name", e["name"]) % HELD_NAMES == 0) == (split == "heldout")]
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry["name"]] = counts.get(entry["name"], 0) + 1
    kept = set(sorted(counts, key=lambda name: (-counts[name], name))[:most])
    return [e for e in entries if e["name"] in kept]

"""What people wish for: to have something drawn, to have a picture of it found, or to have something said about it.

The same things stand in all three kinds of requests, so that their wording alone tells which is meant. No request of training has a held-out wording, and none asks for a held-out
name or pair; such a name may stand within a longer one there, and scenes, a tenth of the things, are drawn anew, of any shapes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from sensorium.core.hashing import stable_int
from sensorium.data.config import MadeSource, SourceConfig
from sensorium.data.drawn import Split, asking, drawing, named_entries, shape_names, shape_pairs
from sensorium.data.picture_book.instruct import with_article
from sensorium.data.picture_book.place import Part
from sensorium.data.scenes import SHAPES
from sensorium.data.sought import listed_names, sought_scene
from sensorium.data.source import Source
from sensorium.data.wordings import DRAW, FIND, NEW_DRAW, NEW_FIND, NEW_WRITE, WRITE

Way = Literal["first", "other"]
ALL = 10**6
"""More names and pairs than there are."""
HELD_SCENES = 900_061
"""Seed of held-out scenes."""


@dataclass(frozen=True, slots=True)
class Something:
    """What a request is about: as it stands in a sentence, without its article, and what kind of thing it is."""

    text: str
    name: str
    kind: str


class Things:
    """Coloured shapes, pairs of them, things of the picture sets, several of those, scenes; in training shapes of no colour, too."""

    def __init__(self, parts: Sequence[Part], split: Split) -> None:
        self._shapes, self._pairs = shape_names(split), shape_pairs(split, ALL)
        entries = [entry for part in parts for entry in named_entries(part, split, ALL)]
        self._kinds = {entry["name"]: entry["category"] for entry in sorted(entries, key=lambda one: one["id"])}
        self._names = sorted(self._kinds)
        self._scenes, self._plain = (HELD_SCENES, 0) if split == "heldout" else (HELD_SCENES + 1, 1)

    def draw(self, rng: random.Random) -> Something:
        """One of them, by chance."""
        what = rng.choices(("shape", "pair", "named", "several", "scene", "plain"), (3, 1, 4, 1, 1, self._plain))[0]
        if what == "plain":
            name = rng.choice(SHAPES)
            return Something(with_article(name), name, "shape")
        if what == "shape":
            name = rng.choice(self._shapes)
            return Something(with_article(name), name, "shape")
        if what == "pair":
            return _together([with_article(name) for name in rng.choice(self._pairs)])
        if what == "scene":
            return _together([sought_scene(self._scenes, rng.randrange(ALL)).text])
        if what == "several":
            names = rng.sample(self._names, rng.choice((2, 2, 3)))
            return _together([listed_names(names)])
        name = rng.choice(self._names)
        return Something(with_article(name), name, self._kinds[name])


def _together(texts: Sequence[str]) -> Something:
    text = " and ".join(texts)
    return Something(text, text, "thing")


class WishesSource(SourceConfig):
    """Requests that are answered with a picture, of which `way` says whether it is better drawn ("first") or found ("other"), and
    questions that are answered in words."""

    kind: Literal["wishes"] = "wishes"
    parts: tuple[Part, ...] = Field(default=("best",), min_length=1)
    """Picture sets whose names are asked for."""
    split: Split = "train"
    """Of wordings and names."""
    seed: int = 61
    count: int = Field(default=4000, ge=1)
    words: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of rows that want words."""

    def open(self) -> Source:
        things, held = Things(self.parts, self.split), self.split == "heldout"
        ways: tuple[tuple[Way, tuple[str, ...]], ...] = (("first", NEW_DRAW if held else DRAW), ("other", NEW_FIND if held else FIND))
        questions = NEW_WRITE if held else WRITE

        def make(index: int) -> dict[str, Any]:
            rng = random.Random(stable_int("wishes", self.split, self.seed, index))
            identity, one = f"wishes/{self.split}/{self.seed}/{index}", things.draw(rng)
            if rng.random() < self.words:
                question, answer = (text.format(a=one.text, n=one.name, k=one.kind) for text in rng.choice(questions))
                return asking(identity, question, answer)
            way, requests = rng.choice(ways)
            return drawing(identity, rng.choice(requests).format(one.text), {"way": way})

        return MadeSource("wishes", self.count, make, None)

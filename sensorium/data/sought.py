"""Pictures with descriptions to find them by: picture-book and drawing-book, scenes, composites.

A description names all that a picture shows, once each. It may be true of several pictures; which, is told by sets of
plain names: a description means one such set, and a picture has those that are true of it.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sensorium.core.hashing import stable_int
from sensorium.data.config import MadeSource, SourceConfig
from sensorium.data.located import CompositesSource, Split
from sensorium.data.picture_book.build import read_entries
from sensorium.data.picture_book.instruct import true_name, with_article
from sensorium.data.picture_book.place import Part, book_folder
from sensorium.data.scenes import caption, draw_scene, make_scene
from sensorium.data.source import Source

FORMS = (
    "Find a picture of {}.",
    "Find me a picture of {}.",
    "Show me a picture of {}.",
    "Find {}.",
    "Search for a picture of {}.",
    "I am looking for a picture of {}.",
)
ARTICLES = ("a ", "an ", "the ")
QUALITY = 90
"""Of drawn pictures as WebP."""


@dataclass(frozen=True)
class Sought:
    """A picture, and what it may be found by."""

    identity: str
    picture: Callable[[], Any]
    """A path, or an encoded picture."""
    text: str
    """Its description, as it stands in a sentence."""
    meaning: str
    """What the description says, in plain names."""
    true: frozenset[str]
    """All meanings that are true of the picture."""
    entry: dict[str, Any] | None = None
    """Of picture-book or drawing-book."""


class SoughtSource(SourceConfig):
    """Requests for a picture, answered with it."""

    kind: Literal["sought"] = "sought"
    pictures: Literal["book", "scenes", "composites"] = "book"
    parts: tuple[Part, ...] = Field(default=("best",), min_length=1)
    """Of `book`, and whose cut-outs `composites` paste."""
    split: Split = "train"
    """Of those."""
    seed: int = 51
    count: int = Field(default=1000, ge=1)
    """How many are drawn of scenes and composites, which are kept in memory."""
    variants: int = Field(default=3, ge=1)
    """Ways in which each picture of `book` is asked for: once by its caption, then by any true name."""

    def open(self) -> Source:
        if self.pictures == "book":
            found = [one for part in self.parts for one in sought_in_book(part, self.split)]

            def ask(index: int) -> dict[str, Any]:
                way, place = divmod(index, len(found))
                one = found[place]
                text = _other_way(one, self.seed, way) if way else one.text
                return request_sample(f"{one.identity}#sought{way}", one.picture(), asking(text))

            return MadeSource("sought in books", len(found) * self.variants, ask, None)
        draw = sought_scene if self.pictures == "scenes" else composite_maker(self.parts, self.split)

        @cache
        def drawn(index: int) -> dict[str, Any]:
            one = draw(self.seed, index)
            return request_sample(f"{one.identity}#sought", one.picture(), asking(one.text))

        return MadeSource(f"sought {self.pictures}", self.count, drawn, None)


def asking(text: str) -> str:
    """A request for what is described: each description always in the same words, half of them in the plainest."""
    draw = random.Random(stable_int("asking", text))
    return (FORMS[0] if draw.random() < 0.5 else draw.choice(FORMS)).format(text)


def request_sample(identity: str, picture: Any, text: str) -> dict[str, Any]:
    """A Sample's JSON: the request, then the picture."""
    return {"id": identity, "messages": [
        {"role": "user", "content": text},
        {"role": "assistant", "content": [{"type": "image", "image": picture}]}]}  # fmt: skip


def sought_in_book(part: Part, split: Split) -> list[Sought]:
    """The pictures of a set."""
    folder = book_folder(part)
    return [_of_entry(entry, folder) for entry in read_entries(folder) if entry["split"] == split]


def _of_entry(entry: dict[str, Any], folder: Path) -> Sought:
    meaning = bare(entry["caption"])
    true = frozenset({meaning, entry["name"], *entry["accepted"]})
    return Sought(entry["id"], lambda: str(folder / entry["image"]), entry["caption"], meaning, true, entry)


def _other_way(one: Sought, seed: int, way: int) -> str:
    """A true name, mostly the picture's own."""
    rng = random.Random(stable_int("sought", seed, way, one.identity))
    assert one.entry is not None
    return with_article(true_name(one.entry, rng))


def sought_scene(seed: int, index: int) -> Sought:
    """A synthetic scene."""
    scene = make_scene(seed, index)
    said = caption(scene).rstrip(".")
    meaning = together([thing.name for thing in scene.things])
    return Sought(f"scene/{seed}/{index}", lambda: encoded(draw_scene(scene)), said[0].lower() + said[1:],
                  meaning, frozenset({meaning}))  # fmt: skip


def composite_maker(parts: Sequence[Part], split: Split) -> Callable[[int, int], Sought]:
    """What makes the n-th composite of a seed."""
    makers: dict[int, Callable[[int], Any]] = {}

    def make(seed: int, index: int) -> Sought:
        if seed not in makers:
            makers[seed] = CompositesSource(parts=tuple(parts), split=split, seed=seed).maker()
        located = makers[seed](index)
        names = [target.names[0] for target in located.targets]
        content = encoded(located.picture)
        meaning = together(names)
        return Sought(located.identity, lambda: content, listed_names(names), meaning, frozenset({meaning}))

    return make


def listed_names(names: Sequence[str]) -> str:
    """`a cat, grapes and an owl`."""
    said = [with_article(name) for name in names]
    return said[0] if len(said) == 1 else ", ".join(said[:-1]) + " and " + said[-1]


def together(names: Sequence[str]) -> str:
    """What several names mean together, whatever their order."""
    return " + ".join(sorted(names))


def bare(text: str) -> str:
    """A description without its article."""
    return next((text.removeprefix(word) for word in ARTICLES if text.startswith(word)), text)


def encoded(picture: Any) -> bytes:
    """A drawn picture as WebP."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY)
    return buffer.getvalue()

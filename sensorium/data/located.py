"""Scenes and composites whose things are located: sources of pointing questions.

Every Sample holds the truth in `meta.things`: of each thing a name, its box in pixels and its mask
as `core/masks.py` reads it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from PIL import Image as PILImage
from pydantic import Field

from sensorium.core.boxes import Box
from sensorium.core.errors import DataError
from sensorium.core.hashing import stable_int
from sensorium.core.masks import Mask
from sensorium.data.composites import Composite, Cutout, Pasted, make_composite, name_words
from sensorium.data.config import MadeSource, SourceConfig
from sensorium.data.picture_book.build import read_entries
from sensorium.data.picture_book.instruct import BROAD_KINDS, Catalogue
from sensorium.data.picture_book.place import Part, book_folder
from sensorium.data.picture_book.words import singular
from sensorium.data.pointing import (
    Pointing,
    Target,
    ask_where,
    grounded_sample,
    masked_sample,
    pointing_sample,
)
from sensorium.data.scenes import (
    CANVAS_PX,
    COLORS,
    OVERSAMPLE,
    SHAPES,
    Scene,
    draw_scene,
    make_scene,
    thing_mask,
)
from sensorium.data.segmenting import segment_sample
from sensorium.data.source import Source

Split = Literal["train", "heldout"]
LocatedTask = Literal["pointing", "grounded", "words", "masks", "segment"]


@dataclass(frozen=True)
class Located:
    """A picture with things whose places are known."""

    identity: str
    picture: PILImage.Image
    targets: tuple[Target, ...]
    truth: tuple[Pasted, ...]
    absent: Callable[[random.Random], str | None]
    """Draws a noun of something that is not there."""

    def ask(self, rng: random.Random, count: int) -> list[Pointing]:
        """Up to `count` questions."""
        return ask_where(self.targets, min(self.picture.size), self.absent, rng, count=count)

    @cached_property
    def meta(self) -> dict[str, Any]:
        return {"things": [
            {"name": t.names[0], "box": list(t.box.numbers), "mask": Mask.from_array(p.mask_HW).to_json()}
            for t, p in zip(self.targets, self.truth, strict=True)
        ]}  # fmt: skip


class LocatedSource(SourceConfig):
    """What sources of located things share."""

    task: LocatedTask = "pointing"
    """`pointing`: questions, each asked afresh; `grounded`: all things with their boxes; `words`: the
    same, and of each thing every word that is true of it; `masks`: all things with their masks;
    `segment`: a thing is asked for, and answered with its mask as LISA's data word it."""
    seed: int = 31
    count: int = Field(default=20000, ge=1)
    """Rows; nothing is kept of them, so that a billion costs no more than one."""
    questions: int = Field(default=8, ge=1)

    def maker(self) -> Callable[[int], Located]:
        """What makes the n-th picture."""
        raise TypeError(f"{type(self).__name__} does not define maker()")

    def open(self) -> Source:
        locate = self.maker()

        def make(index: int) -> dict[str, Any]:
            found = locate(index)
            if self.task == "masks":
                return masked_sample(f"{found.identity}#masks", found.picture, found.meta)
            if self.task == "segment":
                rng = random.Random(stable_int("segment", self.seed, found.identity))
                things = [(target.names[0], pasted.mask_HW) for target, pasted in zip(found.targets, found.truth, strict=True)]
                return segment_sample(f"{found.identity}#segment", found.picture, things, rng, found.meta)
            if self.task != "pointing":
                told = found.targets if self.task == "grounded" else map(_all_words, found.targets)
                return grounded_sample(f"{found.identity}#{self.task}", found.picture, list(told), found.meta)
            rng = random.Random(stable_int("pointing", self.seed, found.identity))
            asked = found.ask(rng, self.questions)
            return pointing_sample(f"{found.identity}#pointing", found.picture, asked, found.meta)

        return MadeSource(f"{self.kind} {self.task}", self.count, make, None)


class CompositesSource(LocatedSource):
    """Cut-outs of picture-book on grounds of all sorts."""

    kind: Literal["composites"] = "composites"
    parts: tuple[Part, ...] = Field(default=("best",), min_length=1)
    split: Split = "train"

    def maker(self) -> Callable[[int], Located]:
        cutouts = read_cutouts(self.parts, self.split)
        catalogue = known_names(self.parts)
        prefix = f"composite/{'+'.join(self.parts)}/{self.split}/{self.seed}"
        return lambda index: located_composite(
            make_composite(cutouts, self.seed, index), catalogue, f"{prefix}/{index}"
        )


class LocatedScenesSource(LocatedSource):
    """Synthetic scenes, asked where their shapes are."""

    kind: Literal["located_scenes"] = "located_scenes"

    def maker(self) -> Callable[[int], Located]:
        return lambda index: located_scene(
            make_scene(self.seed, index), f"scene/{self.seed}/{index}"
        )


def read_cutouts(parts: Sequence[Part], split: Split) -> list[Cutout]:
    """Pictures of a split that may be cut-outs; whether one is shows when it is read.

    Raises:
        DataError: a part has not been built, or there are none.
    """
    cutouts = [
        Cutout(entry, folder / entry["image"])
        for folder in map(book_folder, parts)
        for entry in read_entries(folder)
        if entry["split"] == split
    ]
    if not cutouts:
        raise DataError(f"no picture of split {split!r}", where=", ".join(parts))
    return cutouts


def known_names(parts: Sequence[Part]) -> Catalogue:
    """Of the training pictures: names that may be asked for though nothing has them."""
    return Catalogue.of([e for folder in map(book_folder, parts)
                         for e in read_entries(folder) if e["split"] == "train"])  # fmt: skip


def located_composite(composite: Composite, catalogue: Catalogue, identity: str) -> Located:
    """Targets of a composite's things."""
    entries = [thing.entry for thing in composite.things]
    words = frozenset[str]().union(*(name_words(e) for e in entries))
    kinds = frozenset(word for e in entries for word in (e["category"] or "").split())

    def absent(rng: random.Random) -> str | None:
        near = rng.choice(entries)["category"] if rng.random() < 0.5 else None
        pool = catalogue.names_by_category.get(near or "", []) if near else []
        pool = pool if len(pool) > 3 else catalogue.all_names
        for _ in range(30):
            name = rng.choice(pool)
            if not (words | kinds) & {*name.split(), *map(singular, name.split())}:
                return name
        return None

    known = [e["category"] for e in entries]
    targets = tuple(_target(thing, known) for thing in composite.things)
    return Located(identity, composite.picture, targets, composite.things, absent)


def _target(thing: Pasted, categories: Sequence[str | None]) -> Target:
    entry = thing.entry
    others = sorted({n for n in entry["accepted"] if n != entry["name"]}
                    - {f"{n}{end}" for n in entry["accepted"] for end in ("s", "es")})  # fmt: skip
    # A picture without a category may be of any.
    kind = entry["category"] if None not in categories and entry["category"] in BROAD_KINDS else None
    return Target((entry["name"], *others), thing.box, (kind,) if kind else ())


def _all_words(target: Target) -> Target:
    """The target, called by all words of its names at once."""
    words = dict.fromkeys(word for name in target.names for word in name.split())
    # Plurals and singulars of one word would count twice.
    return replace(target, names=(" ".join(w for w in words if not (w.endswith("s") and w[:-1] in words)),))


def located_scene(scene: Scene, identity: str) -> Located:
    """Targets of a scene's shapes: by colour and shape, shape, or colour."""
    targets: list[Target] = []
    truth: list[Pasted] = []
    for thing in scene.things:
        mask = thing_mask(thing)
        corners = mask.getbbox() or (0, 0, 1, 1)
        box = Box(*(corner / OVERSAMPLE for corner in corners))
        small_HW = np.asarray(mask.resize((CANVAS_PX, CANVAS_PX), PILImage.Resampling.BOX)) >= 128
        targets.append(Target((thing.name, thing.shape), box, (f"{thing.color} thing",)))
        truth.append(Pasted({"name": thing.name}, box, small_HW))
    names = {n for t in targets for n in (*t.names, *t.kinds)}
    near = sorted({f"{t.color} {s}" for t in scene.things for s in SHAPES}
                  | {f"{c} {t.shape}" for t in scene.things for c in COLORS})  # fmt: skip
    single = sorted({*SHAPES, *(f"{c} thing" for c in COLORS)})

    def absent(rng: random.Random) -> str | None:
        # Mostly the right colour with the wrong shape, or the other way round.
        pool = [n for n in (near if rng.random() < 0.6 else single) if n not in names]
        return rng.choice(pool) if pool else None

    return Located(identity, draw_scene(scene), tuple(targets), tuple(truth), absent)

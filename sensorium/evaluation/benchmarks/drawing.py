"""Drawing: are pictures drawn of held-out descriptions what was described?

A judge that the benchmark trains on real pictures (`evaluation/judge.py`) says which coloured shapes it sees, of 80; an answer
is right where those of the description come first. Descriptions are of three kinds: shapes in colours that training
never described them in, pairs that it never described, and known shapes; all are asked for in words that it never used. Each kind has a score of its own
beside everyone else's, and so have the first two together (`held_out`), since known shapes in new words test the words alone.

Beside the model stand its own pictures given to other descriptions (`blind`: a control whose text is shuffled), one real
picture for all (`constant`; `chance_...` is the best that any one picture could be right for: that of the
commonest description of its group), real pictures (`real`: what the judge is worth) and, of a model that can, real pictures
through its tokenizer and back (`redrawn`: the best it could draw). `frechet` is measured in the judge's 64 last features
against as many further real pictures of the same descriptions. Of a model that draws by codes, `codes_used` and `code_perplexity`
are those of real pictures of the descriptions. Beside its drawings are shown the nearest pictures of what training drew from.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image as PILImage
from pydantic import Field

from sensorium.core.hands import MadeKind
from sensorium.core.hashing import stable_int
from sensorium.core.responder import Answer, Redraws, Request, Responder
from sensorium.core.sample import Message, Part
from sensorium.data.config import AnySource, SourceConfig, open_sources
from sensorium.data.drawn import (
    NAMES,
    NEW_REQUESTS,
    DrawnScenesSource,
    describe,
    draw,
    shape_names,
    shape_pairs,
)
from sensorium.evaluation.benchmarks.base import BenchmarkConfig, Item
from sensorium.evaluation.drawn_sheets import SHOWN as PAIRS
from sensorium.evaluation.drawn_sheets import write_neighbours, write_samples
from sensorium.evaluation.judge import Judge, Schooling, train_judge
from sensorium.evaluation.metrics.frechet import frechet
from sensorium.evaluation.nearest import nearest, picture_of_row
from sensorium.nn.vector_quantise import code_use

ANSWER_TOKENS = 12
TAGS = ("unseen_colour", "unseen_pair", "unseen_words")
GROUPS = {**{tag: (tag,) for tag in TAGS}, "held_out": ("unseen_colour", "unseen_pair")}
"""Scores with the tags that they are of. What training described in other words is not held out."""
SHOWN = 64
WITNESSES = 1_000_000
"""Added to a seed for the pictures that sets are compared with."""


LAST_LEG = DrawnScenesSource(seed=61, count=4_000_000, pairs=3000, single=0.5, requests=24)
"""Of nano-draws' training: 2,431 steps of 128."""


class DrawingBenchmark(BenchmarkConfig):
    """A third each of unseen colours of shapes, unseen pairs and unseen words."""

    kind: Literal["drawing"] = "drawing"
    seed: int = 900_041
    """Training never uses it."""
    count: int = 240
    schooled: int = Field(default=4000, ge=80)
    """Real pictures that the judge is trained on."""
    epochs: int = Field(default=16, ge=1)
    trained_on: AnySource = LAST_LEG
    """What the model learnt to draw from; the default is what nano-draws last did."""
    neighbours: int = Field(default=40_000, ge=1)
    """Rows of it among whose pictures the nearest are looked for, the first that training draws: a core takes a minute over these."""

    @property
    def constant(self) -> str:
        return ""

    @property
    def beside(self) -> dict[str, tuple[str, ...]]:
        return {
            "best one picture, of each line above": tuple(f"chance_{group}" for group in ("accuracy", *GROUPS)),
            "codes used / perplexity / codes": ("codes_used", "code_perplexity", "codes"),
        }

    def groups(self, items: Sequence[Item]) -> dict[str, int]:
        counts = {group: len(_of_group(items, group)) for group in GROUPS}
        return {group: count for group, count in counts.items() if count}

    def items(self) -> list[Item]:
        wanted = min(self.count, self.limit or self.count)
        unseen, known, pairs = shape_names("heldout"), shape_names("train"), shape_pairs("heldout", 10**6)
        rng = random.Random(stable_int("drawing", self.seed))
        items: list[Item] = []
        for i in range(wanted):
            tag = TAGS[i % 3]
            names = {
                "unseen_colour": (unseen[i // 3 % len(unseen)],),
                "unseen_pair": pairs[i // 3 % len(pairs)],
                "unseen_words": (rng.choice(known),),
            }[tag]
            asked = rng.choice(NEW_REQUESTS).format(describe(rng, names).text)
            request = Request(f"drawing/{self.seed}/{i}", (Message("user", (Part("text", asked),)),), ANSWER_TOKENS, seed=i, draws=True)
            items.append(Item(request, tuple(names), (tag, *names[0].split()) if len(names) == 1 else (tag,)))
        return items

    @property
    def looks_at(self) -> frozenset[MadeKind]:
        return frozenset(["image"])

    def people(self, responder: Responder) -> dict[str, Responder]:
        items = self.items()
        real = [self.real(item) for item in items]
        model = Remembering(responder)
        everyone: dict[str, Responder] = {
            "model": model,
            "blind": Swapped(model, _shuffled([item.request.id for item in items], self.seed)),
            "constant": Shown({item.request.id: real[0] for item in items}),
            "real": Shown({item.request.id: picture for item, picture in zip(items, real, strict=True)}),
        }
        redrawn = responder.redraw(real) if isinstance(responder, Redraws) else None
        if redrawn is not None:
            everyone["redrawn"] = Shown({item.request.id: picture for item, picture in zip(items, redrawn.pictures, strict=True)})
        return everyone

    def measures(self, responder: Responder) -> dict[str, float]:
        redrawn = responder.redraw([self.real(item) for item in self.items()]) if isinstance(responder, Redraws) else None
        if redrawn is None or not redrawn.ids:
            return {}
        use = code_use(torch.tensor(redrawn.ids), redrawn.codes)
        return {"codes_used": use.used, "code_perplexity": use.perplexity, "codes": float(redrawn.codes)}

    def real(self, item: Item, more: int = 0) -> PILImage.Image:
        """A real picture of what an item describes."""
        return draw(describe(random.Random(stable_int("drawing-real", self.seed + more, item.request.id)), item.gold))

    def right(self, item: Item, answer: Answer) -> bool:
        picture = picture_of(answer)
        return picture is not None and _named(self.judge.seen([picture])[0][0], len(item.gold)) == set(item.gold)

    @property
    def judge(self) -> Judge:
        return _judge(self.seed, self.schooled, self.epochs)

    def scores(self, items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, float]:
        pictures = {i: p for i, answer in enumerate(answers) if (p := picture_of(answer)) is not None}
        marks = [False] * len(items)
        colors = list(marks)
        shapes = list(marks)
        out = {"drawn": len(pictures) / max(1, len(items))}
        if pictures:
            scores_NK, features_ND = self.judge.seen(list(pictures.values()))
            for i, scores_K in zip(pictures, scores_NK, strict=True):
                gold, said = set(items[i].gold), _named(scores_K, len(items[i].gold))
                marks[i] = said == gold
                colors[i] = {n.split()[0] for n in said} == {n.split()[0] for n in gold}
                shapes[i] = {n.split()[1] for n in said} == {n.split()[1] for n in gold}
            if len(pictures) > 1:
                _, others_ND = self.judge.seen([self.real(items[i], WITNESSES) for i in pictures])
                out["frechet"] = frechet(features_ND.numpy(), others_ND.numpy())
        named = {"accuracy": marks, "right_colours": colors, "right_shapes": shapes}
        out |= {name: _mean(values) for name, values in named.items()}
        out["chance_accuracy"] = _commonest(items)
        for group in self.groups(items):
            places = _of_group(items, group)
            out[group] = _mean([marks[i] for i in places])
            out[f"drawn_{group}"] = _mean([i in pictures for i in places])
            out[f"chance_{group}"] = _commonest([items[i] for i in places])
        return out

    def is_share(self, score: str) -> bool:
        return score not in ("frechet", "code_perplexity", "codes")

    def sheets(self, items: Sequence[Item], answers: Sequence[Answer], folder: Path) -> dict[str, Any]:
        """The first 64 answers as they came, and the first 20 pictures beside the nearest of training; how near, beside real pictures."""
        pictures = [picture_of(answer) for answer in answers]
        write_samples(folder / "drawing.png", pictures[:SHOWN], [", ".join(item.gold) for item in items[:SHOWN]])
        empty = {"without_picture": sum(picture is None for picture in pictures[:SHOWN])}
        drawn = [(item, picture) for item, picture in zip(items, pictures, strict=True) if picture is not None]
        if not drawn:
            return {"files": ["drawing.png"]} | empty
        return {"files": ["drawing.png", "drawing_neighbours.png"]} | self._beside_training(drawn, folder / "drawing_neighbours.png") | empty

    def _beside_training(self, drawn: Sequence[tuple[Item, PILImage.Image]], sheet: Path) -> dict[str, Any]:
        """Write the sheet of drawings and their nearest pictures of training; how near these are, and those of real pictures."""
        (source,), _ = open_sources((self.trained_on,))
        # Both at once: most of the time goes into drawing what they are compared with.
        found = nearest([*(picture for _, picture in drawn), *(self.real(item) for item, _ in drawn)], source, self.neighbours)
        (items, pictures), count = zip(*drawn[:PAIRS], strict=True), len(drawn)
        beside = [cast(PILImage.Image, picture_of_row(source, int(row))) for row in found.row_N[: len(items)]]
        write_neighbours(sheet, pictures, beside, [", ".join(item.gold) for item in items], found.distance_N.tolist())
        halves = (found.distance_N[:count], found.distance_N[count:])
        (near, real), (least, least_real) = ([float(of(half_N)) for half_N in halves] for of in (np.median, np.min))
        rows = f"{found.looked_through:,} pictures of the {len(source):,} rows of {_told(self.trained_on)}"
        said = (f"nearest training picture: {near:.3f} away, that of a real held-out picture {real:.3f} "
                f"(medians of {count}, least {least:.3f} and {least_real:.3f}; among {rows})")  # fmt: skip
        return {"nearest_training_rms": near, "nearest_training_rms_of_real": real,
                "nearest_training_rms_least": least, "nearest_training_rms_of_real_least": least_real,
                "nearest_among": found.looked_through, "nearest_of": len(source), "said": [said]}  # fmt: skip


def picture_of(answer: Answer) -> PILImage.Image | None:
    """The first picture of an answer."""
    return next((cast(PILImage.Image, part.value) for part in answer.parts if part.type == "image"), None)


@lru_cache(maxsize=2)
def _judge(seed: int, count: int, epochs: int) -> Judge:
    """Trained on pictures of one and of two shapes of all names, none of which training or the benchmark draws."""
    pictures: list[PILImage.Image] = []
    shares_NK = torch.zeros(count, len(NAMES))
    for i in range(count):
        rng = random.Random(stable_int("judge", seed, i))
        names = [NAMES[i % len(NAMES)]] if i % 3 else rng.sample(NAMES, 2)
        pictures.append(draw(describe(rng, names)))
        shares_NK[i, [NAMES.index(name) for name in names]] = 1 / len(names)
    return train_judge(pictures, shares_NK, Schooling(epochs=epochs))


def _named(scores_K: torch.Tensor, count: int) -> set[str]:
    """The shapes that the judge is surest of, so many."""
    return {NAMES[i] for i in scores_K.topk(count).indices.tolist()}


def _told(source: SourceConfig) -> str:
    """A source by its kind and what was set of it."""
    values = source.model_dump(exclude_unset=True, exclude={"kind"})
    return f"{source.kind} ({', '.join(f'{key}={value}' for key, value in values.items())})" if values else source.kind


def _shuffled(ids: Sequence[str], seed: int) -> dict[str, str]:
    """Whose answer each request gets: another one's, each once."""
    order = list(ids)
    random.Random(stable_int("drawing-shuffled", seed)).shuffle(order)
    return {one: order[(i + 1) % len(order)] for i, one in enumerate(order)}


def _of_group(items: Sequence[Item], group: str) -> list[int]:
    """Places of a group's items."""
    return [i for i, item in enumerate(items) if not set(GROUPS[group]).isdisjoint(item.tags)]


def _commonest(items: Sequence[Item]) -> float:
    """The share that describes what most do: who draws without reading cannot be right for more."""
    counts = Counter(frozenset(item.gold) for item in items)
    return max(counts.values(), default=0) / max(1, len(items))


def _mean(values: Sequence[bool]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


@dataclass(slots=True)
class Remembering:
    """A responder whose answers are kept."""

    inner: Responder
    kept: dict[str, Answer] = field(default_factory=dict[str, Answer])

    def respond(self, requests: Sequence[Request]) -> Iterator[Answer]:
        for answer in self.inner.respond(requests):
            self.kept[answer.id] = answer
            yield answer


@dataclass(frozen=True, slots=True)
class Swapped:
    """The kept answers, each given to another request."""

    memory: Remembering
    whose: dict[str, str]

    def respond(self, requests: Sequence[Request]) -> Iterator[Answer]:
        for request in requests:
            other = self.memory.kept[self.whose[request.id]]
            yield Answer(request.id, other.text, other.tokens, other.parts)


@dataclass(frozen=True, slots=True)
class Shown:
    """A given picture for each request."""

    pictures: dict[str, Any]

    def respond(self, requests: Sequence[Request]) -> Iterator[Answer]:
        for request in requests:
            yield Answer(request.id, "", 0, (Part("image", self.pictures[request.id]),))

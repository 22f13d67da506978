"""Pointing: where is the named thing? Held-out scenes and composites of held-out cut-outs.

The measure is that of referring expression comprehension: an answer is right where its box and the
true one share at least half of what they cover together (IoU >= 0.5). A third of the questions ask for
what is not there. Masks that answers hold are scored as those of reasoning segmentation (gIoU and cIoU). Two
answers that see nothing stand beside the model's: a box in the centre of the mean size of training boxes
(`constant`), and boxes of training sizes anywhere (`random_...`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

from PIL import Image as PILImage
from pydantic import Field

from sensorium.core.batch import MediaShape
from sensorium.core.boxes import Box, View
from sensorium.core.hands import MadeKind
from sensorium.core.hashing import stable_int
from sensorium.core.masks import Mask, read_mask
from sensorium.core.responder import Answer
from sensorium.data.located import CompositesSource, Located, LocatedScenesSource
from sensorium.data.picture_book.place import Part
from sensorium.evaluation.benchmarks.base import BenchmarkConfig, Item, question
from sensorium.evaluation.metrics.boxes import box_iou
from sensorium.evaluation.metrics.masks import mask_scores
from sensorium.evaluation.metrics.pointed import Pointed, read_pointing
from sensorium.media.boxes import letterboxed, stretched
from sensorium.media.drawing import Mark, draw_marks
from sensorium.media.image import load_image
from sensorium.text.box_formats import Shikra

TRAINING_PICTURES = 40
ABSENT_EVERY = 3
GOLD = Shikra()


class PointingBenchmark(BenchmarkConfig):
    """Half scenes, half composites; one question a picture."""

    kind: Literal["pointing"] = "pointing"
    parts: tuple[Part, ...] = Field(default=("best",), min_length=1)
    """Whose held-out cut-outs are pasted."""
    seed: int = 900_031
    """Training never uses it."""
    count: int = 400
    frame: Literal["letterbox", "stretch"] = "letterbox"
    """What the coordinates of answers refer to: the picture padded to a square, or the picture itself."""

    @property
    def headline(self) -> str:
        return "iou_50"

    @property
    def beside(self) -> dict[str, tuple[str, ...]]:
        return {"random boxes": ("random_iou_50",), "mean IoU / random": ("mean_iou", "random_mean_iou"),
                "masks gIoU / cIoU": ("mask_giou", "mask_ciou")}  # fmt: skip

    def groups(self, items: Sequence[Item]) -> dict[str, int]:
        absent = len(items) - self.counted(items)
        return {"absent_denied": absent} if absent else {}

    @property
    def constant(self) -> str:
        width, height = _mean_size(self.parts, self.frame)
        return GOLD.write([Box(0.5 - width / 2, 0.5 - height / 2, 0.5 + width / 2, 0.5 + height / 2)])

    @property
    def looks_at(self) -> frozenset[MadeKind]:
        return frozenset(["mask"])

    def counted(self, items: Sequence[Item]) -> int:
        return sum("absent" not in item.tags for item in items)

    def items(self) -> list[Item]:
        wanted = min(self.count, self.limit or self.count)
        makers = _makers(self.parts, "heldout", self.seed)
        items: list[Item] = []
        number = 0
        while len(items) < wanted:
            name, make = makers[number % 2]
            item = self._item(make(number), name, absent=number % ABSENT_EVERY == 0)
            items += [] if item is None else [item]
            number += 1
        return items

    def _item(self, found: Located, name: str, *, absent: bool) -> Item | None:
        """A question of the wanted sort; None where the picture allows none."""
        rng = random.Random(stable_int("pointing-benchmark", self.seed, found.identity))
        asked = next((q for q in found.ask(rng, 6) if (q.box is None) == absent), None)
        if asked is None:
            return None
        tags = (name, "absent") if absent else (name, f"by_{asked.way}", f"{len(found.targets)}_things")
        gold = asked.denial
        if asked.box is not None:
            view = view_of(found.picture.size, self.frame)
            gold = GOLD.write([view.to_unit(view.forward(asked.box))])
        return Item(question(found.identity, found.picture, asked.text, max_tokens=32), (gold,), tags)

    def right(self, item: Item, answer: Answer) -> bool:
        return _right(item, read_pointing(answer.text))

    def scores(self, items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, float]:
        said = [read_pointing(a.text) for a in answers]
        there = [(i, s) for i, s in zip(items, said, strict=True) if "absent" not in i.tags]
        missing = [s for i, s in zip(items, said, strict=True) if "absent" in i.tags]
        shares = [_share(item, pointed) for item, pointed in there]
        guesses = [_guess(item, self.parts, self.frame) for item, _ in there]
        scores = {
            "iou_50": _mean([s >= 0.5 for s in shares]),
            "mean_iou": _mean(shares),
            "absent_denied": _mean([s.state == "denied" for s in missing]),
            "present_denied": _mean([s.state == "denied" for _, s in there]),
            "malformed": _mean([s.state == "malformed" for s in said]),
            "random_iou_50": _mean([g >= 0.5 for g in guesses]),
            "random_mean_iou": _mean(guesses),
        }
        for tag in sorted({t for item, _ in there for t in item.tags}):
            mine = [s for (item, _), s in zip(there, shares, strict=True) if tag in item.tags]
            scores[f"iou_50_{tag}"] = _mean([s >= 0.5 for s in mine])
        return scores | self._mask_scores(items, answers)

    def _mask_scores(self, items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, float]:
        """Of masks, where any are answered; an answer without one has none of the thing."""
        if not any(part.type == "mask" for answer in answers for part in answer.parts):
            return {}
        pairs: list[tuple[Mask, Mask]] = []
        for item, answer in zip(items, answers, strict=True):
            if "absent" not in item.tags:
                true = self._true_mask(item)
                pairs.append((_first_mask(answer) or Mask(*true.size, (true.height * true.width,)), true))
        return {f"mask_{name}": score for name, score in mask_scores(pairs).items()}

    def _true_mask(self, item: Item) -> Mask:
        """Of the thing that is asked for; its picture is made again, which is quick and needs no memory."""
        make = dict(_makers(self.parts, "heldout", self.seed))[item.tags[0]]
        found = make(int(item.request.id.rsplit("/", 1)[1]))
        view, gold = view_of(found.picture.size, self.frame), _gold(item)
        shares = [box_iou(view.to_unit(view.forward(target.box)), gold) if gold else 0.0 for target in found.targets]
        return Mask.from_array(found.truth[shares.index(max(shares))].mask_HW)

    def drawn(self, item: Item, answer: Answer, picture: PILImage.Image) -> PILImage.Image:
        """With the true box and the answered one."""
        view = view_of(picture.size, self.frame)
        boxes = {"true": _gold(item), "answer": read_pointing(answer.text).box}
        marks = [Mark(view.backward(view.from_unit(b)), name) for name, b in boxes.items() if b is not None]
        return draw_marks(load_image(picture), marks).to_pil()


def view_of(size: tuple[int, int], frame: str) -> View:
    """How a picture of (width, height) lies in a frame whose sides are its own longer side."""
    shape, side = MediaShape(size[1], size[0]), max(size)
    return (letterboxed if frame == "letterbox" else stretched)(shape, side, side)


def _gold(item: Item) -> Box | None:
    return None if "absent" in item.tags else GOLD.parse(item.gold[0]).boxes[0]


def _share(item: Item, pointed: Pointed) -> float:
    """IoU with the true box, both as parts of the frame; what lies beyond the frame counts."""
    gold = _gold(item)
    return 0.0 if gold is None or pointed.box is None else box_iou(gold, pointed.box)


def _first_mask(answer: Answer) -> Mask | None:
    return next((read_mask(part.value, "answer") for part in answer.parts if part.type == "mask"), None)


def _right(item: Item, pointed: Pointed) -> bool:
    return pointed.state == "denied" if "absent" in item.tags else _share(item, pointed) >= 0.5


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _guess(item: Item, parts: tuple[Part, ...], frame: str) -> float:
    """IoU of a box of some training box's size, anywhere in the picture."""
    rng = random.Random(stable_int("pointing-guess", item.request.id))
    width, height = rng.choice(_sizes(parts, frame))
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    gold = _gold(item)
    return 0.0 if gold is None else box_iou(gold, Box(x, y, x + width, y + height))


def _makers(
    parts: tuple[Part, ...], split: Literal["train", "heldout"], seed: int
) -> tuple[tuple[str, Callable[[int], Located]], tuple[str, Callable[[int], Located]]]:
    composites = CompositesSource(parts=parts, split=split, seed=seed)
    return ("scenes", LocatedScenesSource(seed=seed).maker()), ("composites", composites.maker())


@lru_cache(maxsize=4)
def _sizes(parts: tuple[Part, ...], frame: str) -> tuple[tuple[float, float], ...]:
    """Width and height of training boxes, as parts of the frame."""
    found: list[tuple[float, float]] = []
    makers = _makers(parts, "train", LocatedScenesSource().seed)
    for number in range(TRAINING_PICTURES):
        located = makers[number % 2][1](number)
        view = view_of(located.picture.size, frame)
        units = [view.to_unit(view.forward(target.box)) for target in located.targets]
        found += [(unit.x1 - unit.x0, unit.y1 - unit.y0) for unit in units]
    return tuple(found)


def _mean_size(parts: tuple[Part, ...], frame: str) -> tuple[float, float]:
    sizes = _sizes(parts, frame)
    return _mean([w for w, _ in sizes]), _mean([h for _, h in sizes])

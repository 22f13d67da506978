"""Questions of where something is: by name, by kind, by size or place, by what is beside it, or of
what is not there.

The forms are those of referring expression comprehension (Shikra, arXiv:2306.15195; LLaVA-1.5,
arXiv:2310.03744): a phrase that fits exactly one thing of the picture, answered with its box.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from sensorium.core.boxes import Box
from sensorium.data.picture_book.words import article

FORMS = (
    "Where {is} {it}?",
    "Please provide the bounding box of {it}.",
    "Where {is} {it} in the picture?",
    "Please provide the bounding box coordinate of the region this sentence describes: {it}.",
    "Give the box of {it}.",
    "Locate {it}.",
    "Find {it} in the image.",
    "Point to {it}.",
)
Way = Literal["name", "kind", "size", "place", "relation", "absent"]
WAYS: tuple[Way, ...] = ("name", "kind", "size", "place", "relation")
# Of the shorter side: differences of place below it are not clear.
CLEAR = 0.12
# Times the next largest area.
LARGER = 1.6
NAMED_SHARE = 0.6
DIRECTIONS = {"to the left of": (-1, 0), "to the right of": (1, 0), "above": (0, -1), "below": (0, 1)}
ENDS = {"leftmost": (-1, 0), "rightmost": (1, 0), "topmost": (0, -1), "lowest": (0, 1)}


@dataclass(frozen=True, slots=True)
class Target:
    """A thing that can be asked for."""

    names: tuple[str, ...]
    """Nouns that are true of it, the most telling first."""
    box: Box
    """Pixels of the picture."""
    kinds: tuple[str, ...] = ()
    """Broader nouns."""

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box.x0 + self.box.x1) / 2, (self.box.y0 + self.box.y1) / 2

    @property
    def area(self) -> float:
        return (self.box.x1 - self.box.x0) * (self.box.y1 - self.box.y0)


@dataclass(frozen=True, slots=True)
class Pointing:
    """A question of where something is, and its answer."""

    text: str
    phrase: str
    box: Box | None
    """None: it is not there."""
    way: Way

    @property
    def denial(self) -> str:
        """What is said where it is not there."""
        return f"There {_verb(self.phrase)} no {self.phrase}."

    def answer(self) -> list[dict[str, Any]]:
        """The parts of the answer."""
        if self.box is None:
            return [{"type": "text", "text": self.denial}]
        return [{"type": "boxes", "boxes": [list(self.box.numbers)]}]


def ask_where(
    targets: Sequence[Target], side_px: float, absent: Callable[[random.Random], str | None],
    rng: random.Random, *, count: int, absent_share: float = 0.3,
) -> list[Pointing]:  # fmt: skip
    """Up to `count` different questions, in random order.

    Args:
        side_px: the shorter side of the picture.
        absent: draws a noun that fits nothing in the picture, or None where none is found.
        absent_share: at least this share is of what is not there.
    """
    missing = math.ceil(count * absent_share)
    found: dict[str, Pointing] = {}
    for _ in range(4 * missing):
        noun = absent(rng) if len(found) < missing else None
        if noun is not None:
            found[noun] = _question(noun, None, "absent", rng)
    ways = _ways(targets, side_px)
    for _ in range(4 * count):
        options: list[Way] = [way for way, phrases in ways.items() if phrases]
        if len(found) >= count or not options:
            break
        named = WAYS[0] in options and rng.random() < NAMED_SHARE
        way = WAYS[0] if named else rng.choice(options)
        phrase, index = ways[way].pop(rng.randrange(len(ways[way])))
        found.setdefault(phrase, _question(phrase, targets[index].box, way, rng))
    # Where a picture has few phrases of its own, what is not there keeps its share and no more.
    absences = [q for q in found.values() if q.box is None]
    present = [q for q in found.values() if q.box is not None]
    if present:
        absences = absences[: math.ceil(len(present) * absent_share / (1 - absent_share))]
    questions = [*absences, *present]
    rng.shuffle(questions)
    return questions


def _question(phrase: str, box: Box | None, way: Way, rng: random.Random) -> Pointing:
    # The first two forms are the plainest, and half of all.
    form = rng.choice(FORMS[:2]) if rng.random() < 0.5 else rng.choice(FORMS)
    return Pointing(form.format(**{"is": _verb(phrase), "it": f"the {phrase}"}), phrase, box, way)


def _verb(phrase: str) -> str:
    head = phrase.split(" to the ")[0].split(" above ")[0].split(" below ")[0]
    return "are" if head.endswith("s") and not article(head) else "is"


def _ways(targets: Sequence[Target], side_px: float) -> dict[Way, list[tuple[str, int]]]:
    """Phrases that fit exactly one target each."""
    said = [n for target in targets for n in {*target.names, *target.kinds}]
    fits_one = lambda noun: said.count(noun) == 1  # noqa: E731
    names = [(n, i) for i, t in enumerate(targets) for n in dict.fromkeys(t.names) if fits_one(n)]
    kinds = [(n, i) for i, t in enumerate(targets) for n in t.kinds if fits_one(n) and n not in t.names]
    return {"name": names, "kind": kinds, "size": _sizes(targets), "place": _ends(targets, side_px),
            "relation": _relations(targets, side_px)}  # fmt: skip


def _sizes(targets: Sequence[Target]) -> list[tuple[str, int]]:
    order = sorted(range(len(targets)), key=lambda i: targets[i].area)
    if len(order) < 2:
        return []
    areas = [max(1.0, targets[i].area) for i in order]
    found = [("smallest thing", order[0])] if areas[1] >= LARGER * areas[0] else []
    return found + ([("largest thing", order[-1])] if areas[-1] >= LARGER * areas[-2] else [])


def _ends(targets: Sequence[Target], side_px: float) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for word, (x, y) in ENDS.items():
        along = sorted((t.centre[0] * x + t.centre[1] * y, i) for i, t in enumerate(targets))
        if len(along) > 1 and along[-1][0] - along[-2][0] >= CLEAR * side_px:
            found.append((f"{word} thing", along[-1][1]))
    return found


def _relations(targets: Sequence[Target], side_px: float) -> list[tuple[str, int]]:
    """`the star to the left of the red circle`: where one fits clearly and no other nearly."""
    found: list[tuple[str, int]] = []
    said = [n for target in targets for n in {*target.names, *target.kinds}]
    for a, anchor in enumerate(targets):
        name = next((n for n in anchor.names if said.count(n) == 1), None)
        if name is None:
            continue
        for words, direction in DIRECTIONS.items():
            nouns = {n for t in targets for n in (*t.names[:2], "thing")}
            for noun in sorted(nouns):
                these = [i for i, t in enumerate(targets) if i != a and noun in (*t.names, *t.kinds, "thing")]
                fits = {i: _fits(targets[i], anchor, direction, CLEAR * side_px) for i in these}
                if sum(1 for fit in fits.values() if fit is not False) == 1 and True in fits.values():
                    found.append((f"{noun} {words} the {name}", next(i for i in fits if fits[i])))
    return found


def _fits(target: Target, anchor: Target, direction: tuple[int, int], clear: float) -> bool | None:
    """Whether it lies clearly there; None: one may argue."""
    dx, dy = (t - a for t, a in zip(target.centre, anchor.centre, strict=True))
    along = dx * direction[0] + dy * direction[1]
    across = abs(dy if direction[0] else dx)
    if along <= 0:
        return False if along < -clear or across > 2 * clear else None
    return True if along >= clear and along > across + clear else None


def pointing_sample(
    identity: str, picture: Any, questions: Sequence[Pointing], meta: dict[str, Any]
) -> dict[str, Any]:
    """A Sample's JSON: the picture, then its questions, each asked afresh; one alone is an ordinary conversation."""
    messages: list[dict[str, Any]] = []
    for i, question in enumerate(questions):
        content: list[dict[str, Any]] = [] if i else [{"type": "image", "image": picture}]
        messages.append({"role": "user", "content": [*content, {"type": "text", "text": question.text}]})
        messages.append({"role": "assistant", "content": question.answer()})
    return {"id": identity, "messages": messages, "meta": meta, "separate_turns": len(questions) > 1}


def grounded_sample(
    identity: str, picture: Any, targets: Sequence[Target], meta: dict[str, Any]
) -> dict[str, Any]:
    """A Sample's JSON: the picture, then all its things with their boxes, largest first (grounded
    captions, Kosmos-2, arXiv:2306.14824)."""
    order = sorted(targets, key=lambda t: -t.area)
    named = [{"type": "boxes", "boxes": {"places": [list(t.box.numbers)], "phrase": t.names[0]}} for t in order]
    comma = {"type": "text", "text": ", "}
    told = [named[0], *(part for _, b in pairwise(named) for part in (comma, b))]
    return {"id": identity, "meta": meta, "messages": [
        {"role": "user", "content": [{"type": "image", "image": picture}]},
        {"role": "assistant", "content": told}]}  # fmt: skip


def masked_sample(identity: str, picture: Any, meta: dict[str, Any]) -> dict[str, Any]:
    """A Sample's JSON: the picture, then the masks of its things, as `meta.things` has them."""
    masks = [{"type": "mask", "mask": {**thing["mask"], "phrase": thing["name"]}} for thing in meta["things"]]
    return {"id": identity, "meta": meta, "messages": [
        {"role": "user", "content": [{"type": "image", "image": picture}]},
        {"role": "assistant", "content": masks}]}  # fmt: skip

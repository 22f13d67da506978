"""Synthetic scenes with exact ground truth: shapes on a plain ground.

They serve training and a hallucination benchmark: existence, attribute, count, relation.
A scene is a pure function of (seed, index).
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from PIL import Image as PILImage
from PIL import ImageDraw

from sensorium.core.atomic import atomic_folder, atomic_writer
from sensorium.core.hashing import stable_int

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 35),
    "green": (40, 150, 60),
    "blue": (40, 80, 215),
    "yellow": (245, 215, 40),
    "orange": (245, 140, 25),
    "purple": (135, 55, 170),
    "pink": (245, 135, 185),
    "brown": (125, 75, 40),
    "black": (25, 25, 25),
    "gray": (135, 135, 135),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond")
NUMBERS = ("zero", "one", "two", "three", "four", "five")
GROUNDS = ((255, 255, 255), (255, 255, 255), (245, 245, 235), (225, 235, 245), (235, 245, 230))
CANVAS_PX, OVERSAMPLE = 224, 2
KEPT = 128
"""Of the last scenes, of 150 KB each."""
Ink = int | tuple[int, int, int]
Task = Literal["existence", "attribute", "count", "relation"]
TASKS: tuple[Task, ...] = ("existence", "attribute", "count", "relation")


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape: centre and half size as fractions of the canvas."""

    shape: str
    color: str
    x: float
    y: float
    half: float

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a scene whose answer follows from its things."""

    task: Task
    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class Scene:
    """Things on a ground."""

    things: tuple[Thing, ...]
    ground: tuple[int, int, int]


def make_scene(seed: int, index: int) -> Scene:
    """One to five things that do not overlap; no two are alike in shape and colour,
    except in counting scenes, which repeat one shape."""
    rng = random.Random(stable_int("scene", seed, index))
    count = rng.choice((1, 1, 2, 2, 3, 4, 5))
    repeated = rng.choice(SHAPES) if count > 1 and rng.random() < 0.5 else None
    things: list[Thing] = []
    for _ in range(400):
        if len(things) == count:
            break
        half = rng.uniform(0.11, 0.2) if count > 2 else rng.uniform(0.13, 0.3)
        x, y = rng.uniform(half, 1 - half), rng.uniform(half, 1 - half)
        if any(math.hypot(x - t.x, y - t.y) < 1.25 * (half + t.half) for t in things):
            continue
        shape = repeated if repeated and rng.random() < 0.8 else rng.choice(SHAPES)
        color = rng.choice(tuple(COLORS))
        if not repeated and any((t.shape, t.color) == (shape, color) for t in things):
            continue
        things.append(Thing(shape, color, x, y, half))
    return Scene(tuple(things), rng.choice(GROUNDS))


def draw_scene(scene: Scene, canvas_px: int = CANVAS_PX, oversample: int = OVERSAMPLE) -> PILImage.Image:
    """The scene as an RGB picture of so many pixels a side, edges smoothed by oversampling."""
    side = canvas_px * oversample
    picture = PILImage.new("RGB", (side, side), scene.ground)
    draw = ImageDraw.Draw(picture)
    for thing in scene.things:
        _draw_thing(draw, thing, COLORS[thing.color], scene.ground, side)
    return picture.resize((canvas_px, canvas_px), PILImage.Resampling.LANCZOS)


@lru_cache(maxsize=KEPT)
def drawn(seed: int, index: int) -> tuple[Scene, PILImage.Image]:
    """A scene and its picture, which nobody may write into: training asks for a row twice, to measure it and to read it."""
    scene = make_scene(seed, index)
    return scene, draw_scene(scene)


def thing_mask(thing: Thing) -> PILImage.Image:
    """Where a thing is, at `OVERSAMPLE` times the picture's size: 255 inside, 0 outside."""
    side = CANVAS_PX * OVERSAMPLE
    mask = PILImage.new("L", (side, side), 0)
    _draw_thing(ImageDraw.Draw(mask), thing, 255, 0, side)
    return mask


def _draw_thing(draw: ImageDraw.ImageDraw, thing: Thing, fill: Ink, ground: Ink, side: int) -> None:
    x, y, r = thing.x * side, thing.y * side, thing.half * side
    box = (x - r, y - r, x + r, y + r)
    if thing.shape in ("circle", "ring"):
        draw.ellipse(box, fill=fill)
        if thing.shape == "ring":
            draw.ellipse((x - r * 0.55, y - r * 0.55, x + r * 0.55, y + r * 0.55), fill=ground)
    elif thing.shape == "square":
        s = r * 0.88
        draw.rectangle((x - s, y - s, x + s, y + s), fill=fill)
    elif thing.shape == "cross":
        w = r * 0.34
        draw.rectangle((x - r, y - w, x + r, y + w), fill=fill)
        draw.rectangle((x - w, y - r, x + w, y + r), fill=fill)
    elif thing.shape == "heart":
        points = []
        for step in range(80):
            a = 2 * math.pi * step / 80
            hx = 16 * math.sin(a) ** 3
            hy = 13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)
            points.append((x + hx / 17 * r, y - (hy + 2) / 17 * r))
        draw.polygon(points, fill=fill)
    else:
        draw.polygon(_polygon(thing.shape, x, y, r), fill=fill)


def _polygon(shape: str, x: float, y: float, r: float) -> list[tuple[float, float]]:
    if shape == "diamond":
        return [(x, y - r), (x + 0.7 * r, y), (x, y + r), (x - 0.7 * r, y)]
    corners = {"triangle": 3, "star": 10}[shape]
    points: list[tuple[float, float]] = []
    for i in range(corners):
        radius = r * 0.42 if shape == "star" and i % 2 else r
        angle = 2 * math.pi * i / corners - math.pi / 2
        points.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
    return points


def ask(scene: Scene, task: Task, rng: random.Random) -> Question | None:
    """A question of one task that has exactly one right answer; None where the scene
    allows none."""
    asked = {"existence": _existence, "attribute": _attribute, "count": _count,
             "relation": _relation}[task](scene, rng)  # fmt: skip
    return None if asked is None else Question(task, *asked)


def _existence(scene: Scene, rng: random.Random) -> tuple[str, str]:
    present = rng.random() < 0.5
    names = {thing.name for thing in scene.things}
    if present:
        name = rng.choice(sorted(names))
    else:
        # Hard negatives: right colour with wrong shape, or the other way round.
        near = [f"{t.color} {s}" for t in scene.things for s in SHAPES]
        near += [f"{c} {t.shape}" for t in scene.things for c in COLORS]
        name = rng.choice(sorted(set(near) - names))
    form = rng.choice(("Is there {} in the picture?", "Does the picture show {}?"))
    article = "an" if name[0] == "o" else "a"
    return form.format(f"{article} {name}") + " Answer yes or no.", "yes" if present else "no"


def _attribute(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    shapes = [t.shape for t in scene.things]
    colors = [t.color for t in scene.things]
    options: list[tuple[str, str]] = []
    for thing in scene.things:
        if shapes.count(thing.shape) == 1:
            options.append((f"What color is the {thing.shape}?", thing.color))
        if colors.count(thing.color) == 1:
            options.append((f"What shape is the {thing.color} thing?", thing.shape))
    return rng.choice(options) if options else None


def _count(scene: Scene, rng: random.Random) -> tuple[str, str]:
    shapes = [t.shape for t in scene.things]
    if rng.random() < 0.5:
        return "How many shapes are there?", NUMBERS[len(shapes)]
    shape = rng.choice(shapes) if rng.random() < 0.85 else rng.choice(SHAPES)
    plural = "crosses" if shape == "cross" else f"{shape}s"
    return f"How many {plural} are there?", NUMBERS[shapes.count(shape)]


def _relation(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    named = [t for t in scene.things if sum(o.name == t.name for o in scene.things) == 1]
    pairs = [(a, b) for a in named for b in named if a is not b]
    rng.shuffle(pairs)
    for a, b in pairs:
        dx, dy = b.x - a.x, b.y - a.y
        # Only clear cases: one direction dominates.
        if abs(abs(dx) - abs(dy)) < 0.15:
            continue
        horizontal = abs(dx) > abs(dy)
        truth = ("left of" if dx > 0 else "right of") if horizontal else (
            "above" if dy > 0 else "below"
        )
        wrong = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
        right = rng.random() < 0.5
        where = truth if right else wrong[truth]
        place = where if where in ("above", "below") else f"to the {where}"
        question = f"Is the {a.name} {place} the {b.name}? Answer yes or no."
        return question, "yes" if right else "no"
    return None


def caption(scene: Scene) -> str:
    """All things, in words."""
    names = [f"{'an' if t.name[0] == 'o' else 'a'} {t.name}" for t in scene.things]
    text = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    return text[0].upper() + text[1:] + "."


def scene_sample(scene: Scene, image: Any, seed: int, index: int) -> dict[str, Any]:
    """A conversation of up to four questions about one scene."""
    rng = random.Random(stable_int("scene-questions", seed, index))
    tasks = list(TASKS)
    rng.shuffle(tasks)
    questions = [q for q in (ask(scene, task, rng) for task in tasks) if q is not None]
    return _conversation(questions, image, f"scene/{seed}/{index}")


def scene_sheet(scene: Scene, image: Any, seed: int, index: int) -> dict[str, Any]:
    """Up to eight different questions about one scene, each asked afresh."""
    rng = random.Random(stable_int("scene-sheet", seed, index))
    asked = [ask(scene, task, rng) for task in (*TASKS, *TASKS, "attribute")]
    questions = list(dict.fromkeys(q for q in asked if q is not None))
    sample = _conversation(questions[:8], image, f"scene/{seed}/{index}#sheet")
    return {**sample, "separate_turns": True}


def _conversation(questions: list[Question], image: Any, identity: str) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for i, question in enumerate(questions):
        content: list[dict[str, Any]] = [{"type": "image", "image": image}] if i == 0 else []
        content.append({"type": "text", "text": question.text})
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": question.answer})
    return {"id": identity, "messages": messages}


def build_scenes(out: Path, *, seed: int, count: int) -> None:
    """Write `images/`, `captions.train.jsonl` and `instruct.train.jsonl`, atomically."""
    with atomic_folder(out) as folder:
        (folder / "images").mkdir()
        with (
            atomic_writer(folder / "instruct.train.jsonl") as questions,
            atomic_writer(folder / "captions.train.jsonl") as captions,
        ):
            for index in range(count):
                scene = make_scene(seed, index)
                image = f"images/{index:06d}.webp"
                draw_scene(scene).save(folder / image, "WEBP", quality=85)
                sample = scene_sample(scene, image, seed, index)
                questions.write(json.dumps(sample) + "\n")
                words = {"id": f"scene/{seed}/{index}#caption", "messages": [
                    {"role": "user", "content": [{"type": "image", "image": image}]},
                    {"role": "assistant", "content": caption(scene)}]}  # fmt: skip
                captions.write(json.dumps(words) + "\n")

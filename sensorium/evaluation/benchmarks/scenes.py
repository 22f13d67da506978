"""Synthetic scenes with exact truth: existence, attribute, count, relation."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from sensorium.core.hashing import stable_int
from sensorium.core.responder import Answer
from sensorium.data.scenes import Task, ask, draw_scene, make_scene
from sensorium.evaluation.benchmarks.base import BenchmarkConfig, Item, question
from sensorium.evaluation.metrics.answers import same_value, yes_no
from sensorium.evaluation.metrics.binary import binary_scores


class SceneBenchmark(BenchmarkConfig):
    """Scenes of a seed that training never uses."""

    seed: int = 900_001
    count: int = 300

    @property
    def task(self) -> Task:
        raise TypeError(f"{type(self).__name__} does not define task")

    @property
    def constant(self) -> str:
        return Counter(item.gold[0] for item in self.items()).most_common(1)[0][0]

    def items(self) -> list[Item]:
        wanted = min(self.count, self.limit or self.count)
        items: list[Item] = []
        index = 0
        while len(items) < wanted:
            scene = make_scene(self.seed, index)
            rng = random.Random(stable_int("benchmark", self.task, self.seed, index))
            asked = ask(scene, self.task, rng)
            if asked is not None:
                identity = f"scene/{self.seed}/{index}"
                tag = f"{len(scene.things)}_things"
                items.append(
                    Item(question(identity, draw_scene(scene), asked.text, max_tokens=8),
                         (asked.answer,), (tag,))
                )  # fmt: skip
            index += 1
        return items

    def right(self, item: Item, answer: Answer) -> bool:
        return same_value(answer.text, item.gold[0])


class YesNoScenes(SceneBenchmark):
    """Scene questions answered by yes or no."""

    @property
    def headline(self) -> str:
        return "balanced_accuracy"

    def right(self, item: Item, answer: Answer) -> bool:
        return yes_no(answer.text) == item.gold[0]

    def scores(self, items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, float]:
        gold = [item.gold[0] for item in items]
        return super().scores(items, answers) | binary_scores([yes_no(a.text) for a in answers], gold)


class SceneExistence(YesNoScenes):
    """Is there a red circle? Negatives have the right colour or the right shape."""

    kind: Literal["scene_existence"] = "scene_existence"

    @property
    def task(self) -> Task:
        return "existence"


class Relation(YesNoScenes):
    """Is the red circle to the left of the blue star?"""

    kind: Literal["relation"] = "relation"

    @property
    def task(self) -> Task:
        return "relation"


class Attribute(SceneBenchmark):
    """What color is the circle? What shape is the red thing?"""

    kind: Literal["attribute"] = "attribute"

    @property
    def task(self) -> Task:
        return "attribute"


class Count(SceneBenchmark):
    """How many circles are there?"""

    kind: Literal["count"] = "count"

    @property
    def task(self) -> Task:
        return "count"

"""Pictures of descriptions are drawn late, and are those that were drawn at once."""

from __future__ import annotations

import copy
import pickle
import random

import numpy as np
import pytest

from sensorium.data import drawn
from sensorium.data.drawn import Described, DrawnScenesSource, Undrawn, describe, draw
from sensorium.media.header import image_shape
from sensorium.media.image import load_image

WAYS = {
    "array": np.asarray,
    "copy": lambda one: np.asarray(one.copy()),
    "convert": lambda one: np.asarray(one.convert("RGB")),
    "resize": lambda one: np.asarray(one.resize(one.size)),
    "pickle": lambda one: np.asarray(pickle.loads(pickle.dumps(one))),
    "deepcopy": lambda one: np.asarray(copy.deepcopy(one)),
    "load_image": lambda one: load_image(one).pixels_HWC,
}


def described(seed: int) -> Described:
    return describe(random.Random(seed), ["red square", "blue circle"])


@pytest.mark.parametrize("way", WAYS)
def test_it_is_the_same_picture(way: str) -> None:
    late = Undrawn.of(described(3))
    wanted_HWC = np.asarray(draw(described(3)))
    assert wanted_HWC.std() > 1
    for _ in range(2):
        np.testing.assert_array_equal(WAYS[way](late), wanted_HWC)


def test_nothing_is_drawn_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Described] = []
    plain = draw

    def noting(one: Described) -> object:
        asked.append(one)
        return plain(one)

    monkeypatch.setattr(drawn, "draw", noting)
    row = DrawnScenesSource(count=3).open()[1]
    picture = row.messages[1].content[0].value
    assert image_shape(picture) == load_image(draw(described(1))).shape
    assert asked == []
    load_image(picture)
    assert len(asked) == 1

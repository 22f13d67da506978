"""Mask parts of Samples: which picture's they are, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.core.batch import MediaShape
from sensorium.core.boxes import Box, View
from sensorium.core.errors import DataError
from sensorium.core.masks import Mask
from sensorium.core.sample import Part, parse_sample
from sensorium.media.boxes import letterboxed
from sensorium.media.masks import mask_png
from sensorium.processing.masks import mask_part, place_mask
from sensorium.processing.places import Seen

WIDE, TALL = MediaShape(20, 40), MediaShape(8, 4)
PICTURES = [Seen(WIDE, letterboxed(WIDE, 32, 32)), Seen(TALL, View(4, 8, 1.0, 1.0))]


def a_mask(shape: MediaShape = WIDE) -> Mask:
    inside = np.zeros((shape.height_px, shape.width_px), dtype=bool)
    inside[2:7, 1:3] = True
    return Mask.from_array(inside)


def part(value: Any) -> Part:
    (message,) = parse_sample({"messages": [{"role": "user", "content": [{"type": "mask", "mask": value}]}]}).messages
    return message.content[0]


def test_run_lengths_with_a_phrase_and_a_picture() -> None:
    mask = a_mask()
    told = mask_part(mask, phrase="a cat", picture=1)
    assert told.to_json()["mask"] == mask.to_json() | {"phrase": "a cat", "picture": 1}
    placed = place_mask(part(told.value), PICTURES)
    assert (placed.mask, placed.phrase, placed.picture) == (mask, "a cat", 1)
    # 40 x 20 becomes 32 x 16 in the middle of 32 x 32: (1, 2, 3, 7) becomes (0.8, 9.6, 2.4, 13.6).
    assert placed.in_frame().box == Box(1, 10, 2, 14)
    assert placed.in_frame().size == (32, 32)


def test_a_png_belongs_to_the_last_picture(tmp_path: Path) -> None:
    mask = a_mask(TALL)
    (tmp_path / "m.png").write_bytes(mask_png(mask))
    for value in ("m.png", {"png": "m.png"}, {"png": tmp_path / "m.png", "picture": 2}, mask, mask.array(), mask_png(mask)):
        placed = place_mask(part(value), PICTURES, root=tmp_path)
        assert (placed.mask, placed.phrase, placed.picture) == (mask, None, 2)


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (a_mask(TALL).to_json() | {"picture": 1}, "a mask of 4x8 pixels for a picture of 40x20"),
        (a_mask().to_json(), "a mask of 40x20 pixels for a picture of 4x8"),
        (a_mask().to_json() | {"picture": 3}, "picture 3 with 2 in front"),
        (a_mask().to_json() | {"picture": True}, "picture True"),
        (a_mask().to_json() | {"phrase": 3}, "phrase is 3"),
        (a_mask().to_json() | {"png": "m.png"}, "run lengths and a PNG"),
        ({"phrase": "a cat"}, "without both"),
        (a_mask().to_json() | {"sise": 3}, "unknown key 'sise'.*size"),
        ({"size": [8, 4]}, "counts is None"),
        ("none.png", "no such file"),
        (None, "mask is a NoneType"),
        ([1, 2], "mask is a list"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(value: Any, wrong: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=wrong):
        place_mask(part(value), PICTURES, root=tmp_path)


def test_without_a_picture() -> None:
    with pytest.raises(DataError, match="without a picture in front"):
        place_mask(mask_part(a_mask()), [])

"""Boxes, points, masks and phrases drawn over a picture."""

from __future__ import annotations

import numpy as np
import pytest

from sensorium.core.boxes import Box, Point
from sensorium.core.errors import DataError
from sensorium.core.masks import Mask
from sensorium.media.drawing import COLOURS, OPAQUE, Mark, draw_marks
from sensorium.media.image import Image

GREY = Image(np.full((60, 90, 3), 100, dtype=np.uint8))


def changed(image: Image) -> np.ndarray:
    return np.any(image.pixels_HWC != GREY.pixels_HWC, axis=2)


def test_a_box_is_drawn_along_its_inner_border() -> None:
    drawn = draw_marks(GREY, [Mark(Box(10, 20, 50, 40))])
    border = np.zeros((60, 90), dtype=bool)
    border[20:40, 10:50] = True
    border[21:39, 11:49] = False
    assert np.array_equal(changed(drawn), border)
    assert np.all(drawn.pixels_HWC[border] == COLOURS[0])


def test_a_mask_tints_its_pixels_and_no_others() -> None:
    inside = np.random.default_rng(0).random((60, 90)) < 0.3
    drawn = draw_marks(GREY, [Mark(Point(-5, 3)), Mark(Mask.from_array(inside))])
    assert np.array_equal(changed(drawn), inside)
    tinted = 100 * (1 - OPAQUE) + np.asarray(COLOURS[1]) * OPAQUE
    assert np.abs(drawn.pixels_HWC[inside] - tinted).max() <= 0.5 + 1e-3


def test_the_same_marks_give_the_same_pixels_and_leave_the_picture_alone() -> None:
    inside = np.zeros((60, 90), dtype=bool)
    inside[30:50, 60:80] = True
    marks = [Mark(Box(10, 30, 50, 50), "a cat"), Mark(Mask.from_array(inside), "a dog"), Mark(Point(5, 5), "a nose")]
    first, second = draw_marks(GREY, marks), draw_marks(GREY, marks)
    assert np.array_equal(first.pixels_HWC, second.pixels_HWC)
    assert np.all(GREY.pixels_HWC == 100)
    # A phrase stands on its place's colour, above it.
    for mark, (x, y) in enumerate([(11, 28), (61, 28)]):
        assert tuple(first.pixels_HWC[y, x]) == COLOURS[mark]


@pytest.mark.parametrize(
    "mark",
    [
        Mark(Box(-50, -50, 200, 200), "all of it"),
        Mark(Box(90, 60, 90, 60), "a corner"),
        Mark(Box(95, 0, 99, 9), "beside it"),
        Mark(Box(0, 0, 0, 0), "nothing"),
        Mark(Box(1e9, 1e9, 1e9, 1e9), "far away"),
        Mark(Point(90, 60), "x" * 10_000),
        Mark(Mask(60, 90, (5400,)), "an empty mask"),
        Mark(Box(1, 1, 5, 5), "\ud800 \0 \n\t 圆 🐈 \u200f"),
        Mark(Box(1, 1, 5, 5), ""),
        Mark(Box(0.4, 0.4, 0.6, 0.6)),
    ],
    ids=repr,
)
def test_any_place_and_phrase_can_be_drawn(mark: Mark) -> None:
    drawn = draw_marks(GREY, [mark])
    assert drawn.shape == GREY.shape
    hidden = isinstance(mark.place, Box) and mark.place.x0 > 90
    empty = isinstance(mark.place, Mask)
    assert changed(drawn).any() != (hidden or empty)
    draw_marks(Image(np.zeros((1, 1, 3), dtype=np.uint8)), [] if empty else [mark])


def test_a_mask_of_another_picture_is_refused() -> None:
    with pytest.raises(DataError, match="3x2 pixels over a picture of 90x60"):
        draw_marks(GREY, [Mark(Mask(2, 3, (6,)))])

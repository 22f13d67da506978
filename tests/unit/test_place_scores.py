"""Scores of boxes and masks, by the golden vectors of the benchmarks' page."""

from __future__ import annotations

import numpy as np
import pytest

from sensorium.core.boxes import Box
from sensorium.core.masks import Mask
from sensorium.evaluation.metrics.boxes import box_iou, box_scores
from sensorium.evaluation.metrics.masks import c_iou, g_iou, mask_scores

TEN = (0, 0, 10, 10)
BOXES = [
    (TEN, (5, 0, 15, 10), 0.333333), (TEN, (0, 0, 10, 5), 0.5), (TEN, (2, 2, 8, 8), 0.36), (TEN, (0, 0, 0, 0), 0.0),
    ((0, 0, 4, 4), (1, 1, 5, 5), 0.391304), ((0, 0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75), 0.142857),
    ((0, 0, 3, 2), (1, 0, 4, 2), 0.5), ((1, 1, 1, 1), (1, 1, 1, 1), 0.0), (TEN, (20, 20, 30, 30), 0.0), (TEN, TEN, 1.0),
]  # fmt: skip
OVERLAPS = [(50, 100), (1, 10), (0, 20), (900, 1000)]


@pytest.mark.parametrize(("first", "second", "iou"), BOXES)
def test_golden_boxes(first: tuple[float, ...], second: tuple[float, ...], iou: float) -> None:
    assert box_iou(Box(*first), Box(*second)) == pytest.approx(iou, abs=5e-7)
    assert box_iou(Box(*second), Box(*first)) == pytest.approx(iou, abs=5e-7)


def test_half_is_a_hit_and_no_box_a_miss() -> None:
    found = [Box(0, 0, 10, 5), Box(5, 0, 15, 10), None, Box(*TEN)]
    scores = box_scores(found, [Box(*TEN)] * 4)
    assert scores == pytest.approx({"accuracy": 0.5, "mean_iou": (0.5 + 1 / 3 + 1) / 4, "unparsed": 0.25})
    assert box_scores([], []) == {"accuracy": 0.0, "mean_iou": 0.0, "unparsed": 0.0}


def test_golden_masks() -> None:
    assert g_iou(OVERLAPS) == pytest.approx(0.375)
    assert c_iou(OVERLAPS) == pytest.approx(0.841593, abs=5e-7)
    assert g_iou([*OVERLAPS, (0, 0)]) == pytest.approx(0.5)
    assert c_iou([*OVERLAPS, (0, 0)]) == c_iou(OVERLAPS)
    assert (g_iou([]), c_iou([]), c_iou([(0, 0)])) == (0.0, 0.0, 0.0)


def test_scores_of_masks() -> None:
    true, found = np.zeros((4, 6), dtype=bool), np.zeros((4, 6), dtype=bool)
    true[:2, :4], found[1:3, :4] = True, True
    nothing = Mask(4, 6, (24,))
    pairs = [(Mask.from_array(found), Mask.from_array(true)), (nothing, nothing), (nothing, Mask.from_array(true))]
    assert mask_scores(pairs) == pytest.approx({"giou": (1 / 3 + 1 + 0) / 3, "ciou": 4 / 20})

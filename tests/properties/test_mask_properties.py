"""Masks of any shape through run lengths, PNG files and every way in which pictures reach an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.core.batch import Grid, MediaShape
from sensorium.core.boxes import Box, View
from sensorium.core.errors import SensoriumError
from sensorium.core.masks import Mask, read_mask, union
from sensorium.core.parts import ResolutionConfig
from sensorium.core.sample import parse_sample
from sensorium.media.anyres import AnyResolution
from sensorium.media.masks import load_mask, mask_png
from sensorium.media.native import NativeResolution
from sensorium.media.resolution import FixedResolution
from sensorium.processing.masks import place_mask
from sensorium.processing.places import Seen

SIDES = st.integers(1, 12)
RESOLUTIONS: dict[str, tuple[ResolutionConfig, int]] = {
    "letterbox": (FixedResolution(fit="letterbox"), 1),
    "stretch": (FixedResolution(fit="stretch"), 1),
    "crop": (FixedResolution(fit="crop"), 1),
    "tiles": (AnyResolution(max_tokens=None), 1),
    "one of several": (AnyResolution(several="square"), 2),
    "native": (NativeResolution(max_pixels=28 * 28 * 16), 1),
}


def arrays(sides: st.SearchStrategy[int] = SIDES) -> st.SearchStrategy[np.ndarray]:
    def drawn(height: int, width: int, seed: int, share: float) -> np.ndarray:
        return np.random.default_rng(seed).random((height, width)) < share

    return st.builds(drawn, sides, sides, st.integers(0, 10**6), st.sampled_from([0, 0.05, 0.3, 0.5, 0.9, 1]))


@settings(max_examples=60, deadline=None)
@given(arrays(), st.data())
def test_run_lengths_there_and_back(inside: np.ndarray, data: st.DataObject) -> None:
    mask = Mask.from_array(inside)
    assert np.array_equal(mask.array(), inside)
    assert read_mask(mask.to_json(), "m") == read_mask(mask.to_json(as_text=False), "m") == mask
    assert load_mask(mask_png(mask)) == mask
    rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    around = Box(cols[0], rows[0], cols[-1] + 1, rows[-1] + 1) if inside.any() else None
    assert (mask.area, mask.box) == (inside.sum(), around)
    seed = data.draw(st.integers(0, 10**6))
    other = np.random.default_rng(seed).random(inside.shape) < 0.5
    assert mask.overlap(Mask.from_array(other)) == ((inside & other).sum(), (inside | other).sum())
    assert union([mask, Mask.from_array(other), mask]) == Mask.from_array(inside | other)


def near(found: Box | None, wanted: Box | None, reach_x: float, reach_y: float) -> None:
    if found is None:
        # Thinner than the distance of two middles, it may lie between them.
        assert wanted is None or wanted.x1 - wanted.x0 <= reach_x or wanted.y1 - wanted.y0 <= reach_y
        return
    assert wanted is not None
    for a, b, reach in zip(found.numbers, wanted.numbers, (reach_x, reach_y) * 2, strict=True):
        assert abs(a - b) <= reach + 1e-6


@pytest.mark.parametrize("name", RESOLUTIONS)
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 120), st.integers(1, 120), st.lists(st.floats(0, 1), min_size=4, max_size=4), st.sampled_from([14, 56]))
def test_masks_go_with_boxes(name: str, height: int, width: int, unit: list[float], size: int) -> None:
    """A mask that fills a box lies where the box lies in what the encoder sees, and comes back, within a pixel."""
    resolution, pictures = RESOLUTIONS[name]
    shape = MediaShape(height, width)
    x0, x1 = sorted(round(part * width) for part in unit[:2])
    y0, y1 = sorted(round(part * height) for part in unit[2:])
    inside = np.zeros((height, width), dtype=bool)
    inside[y0:y1, x0:x1] = True
    mask, box = Mask.from_array(inside), Box(x0, y0, x1, y1)
    assert mask.box == (box if inside.any() else None)
    plan = resolution.plan(shape, size, Grid(2, 2), pictures)
    for view in (resolution.frame(shape, plan, size), *resolution.views(shape, plan, size)):
        shown = view.shown(box) if inside.any() else None
        there = mask.forward(view)
        assert there.size == (view.height_px, view.width_px)
        near(there.box, shown, 1, 1)
        back = there.backward(view, height, width)
        assert back.size == mask.size
        returned = None if shown is None else view.backward(shown)
        near(back.box, returned, 1 / view.scale_x + 1, 1 / view.scale_y + 1)


@settings(max_examples=40, deadline=None)
@given(arrays(), st.floats(1, 5), st.floats(1, 5), st.integers(0, 9), st.integers(0, 9))
def test_what_is_not_made_smaller_comes_back_as_it_was(
    inside: np.ndarray, scale_x: float, scale_y: float, left: int, top: int
) -> None:
    height, width = inside.shape
    view = View(int(width * scale_x) + 12, int(height * scale_y) + 12, scale_x, scale_y, left, top)
    mask = Mask.from_array(inside)
    assert mask.forward(view).backward(view, height, width) == mask


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats()
    | st.text(st.sampled_from("0123456789:;<=>?@O`no\ud800\0/."), max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("ab\ud800"), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
SIZES = st.just([2, 3]) | JSON
ROWS = st.fixed_dictionaries({}, optional={
    "size": SIZES, "counts": st.lists(st.integers(0, 4), max_size=5) | JSON, "phrase": JSON, "picture": JSON, "png": JSON,
    "other": JSON})  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(JSON | ROWS)
def test_any_json_is_a_mask_or_an_error_of_ours(value: Any) -> None:
    seen = Seen(MediaShape(2, 3), View(3, 2, 1.0, 1.0))
    try:
        row = {"messages": [{"role": "user", "content": [{"type": "mask", "mask": value}]}]}
        (part,) = parse_sample(row).messages[0].content
        placed = place_mask(part, [seen], root=Path("/nonexistent"))
    except SensoriumError:
        return
    assert placed.mask.size == (2, 3)

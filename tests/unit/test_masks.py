"""Masks: COCO's run lengths as pycocotools 2.0.11 writes them, arithmetic, PNG files."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sensorium.core.boxes import Box, View
from sensorium.core.errors import DataError, MediaError
from sensorium.core.masks import Mask, read_mask, union
from sensorium.core.run_lengths import read_runs, write_runs
from sensorium.media.masks import load_mask, mask_png

DISC = ("]d0;k04M2M4M2O0O2N2O0O2O00000000000000000001N101N2N101N3L3N3L]b0",
        [653, 11, 27, 15, 24, 17, 21, 21, 18, 23, 17, 23, 16, 25, 14, 27, 13, 27, 12, 29, 11, 29, 11, 29, 11, 29, 11, 29,
         11, 29, 11, 29, 11, 29, 11, 29, 11, 29, 11, 29, 12, 27, 13, 27, 14, 25, 16, 23, 17, 23, 18, 21, 21, 17, 24, 15,
         27, 11, 616])  # fmt: skip
NOISE = ("11100031OON013OO1N01OO1090G001001O62HN010O23NN00",
         [1, 1, 1, 1, 1, 1, 4, 2, 3, 1, 1, 1, 2, 4, 1, 3, 2, 1, 2, 2, 1, 1, 2, 1, 11, 1, 2, 1, 2, 2, 2, 2, 3, 1, 9, 3, 1,
          1, 1, 2, 1, 1, 3, 4, 1, 2, 1, 2])  # fmt: skip
# Size, text, run lengths, area, and the box (x, y, width, height) as pycocotools gives them.
GOLDEN: dict[str, tuple[list[int], str, list[int], int, list[int]]] = {
    "disc": ([40, 60], *DISC, 697, [16, 4, 29, 29]),
    "noise": ([9, 11], *NOISE, 41, [0, 0, 11, 9]),
    "empty": ([3, 5], "?", [15], 0, [0, 0, 0, 0]),
    "full": ([4, 2], "08", [0, 8], 8, [0, 0, 2, 4]),
    "one pixel": ([1, 1], "01", [0, 1], 1, [0, 0, 1, 1]),
    "two corners": ([5, 4], "01b00", [0, 1, 18, 1], 2, [0, 0, 4, 5]),
    "over a column's end": ([3, 3], "225", [2, 2, 5], 2, [0, 0, 2, 3]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_both_forms_are_those_of_pycocotools(name: str) -> None:
    size, text, counts, area, (x, y, width, height) = GOLDEN[name]
    mask = read_mask({"size": size, "counts": counts}, "mask")
    assert mask.to_json() == {"size": size, "counts": text}
    assert mask.to_json(as_text=False) == {"size": size, "counts": counts}
    assert read_mask({"size": size, "counts": text}, "mask") == mask
    assert read_mask({"size": size, "counts": text.encode()}, "mask") == mask
    assert Mask.from_array(mask.array()) == mask
    assert mask.area == area == mask.array().sum()
    assert mask.box == (Box(x, y, x + width, y + height) if area else None)


def test_a_disc_and_a_large_ring() -> None:
    """Drawn by their formulas; the ring's text was compared with pycocotools' by its beginning and length."""
    y, x = np.mgrid[:40, :60]
    assert Mask.from_array((x - 30) ** 2 + (y - 18) ** 2 < 15**2).to_json()["counts"] == DISC[0]
    y, x = np.mgrid[:700, :900]
    away = (x - 400) ** 2 + (y - 300) ** 2
    ring = Mask.from_array((away < 280**2) & (away > 100**2))
    text = ring.to_json()["counts"]
    assert (text[:40], len(text)) == ("aob2_1Sd0d0_O>B>D:F:F:G8H8H8I6I8I6J6J6J6", 1876)
    assert (ring.area, ring.box) == (214824, Box(121, 21, 680, 580))


def test_runs_of_nothing_within_a_mask_are_taken_together() -> None:
    mask = read_mask({"size": [3, 4], "counts": [2, 3, 0, 2, 0, 0, 5]}, "mask")
    assert mask.counts == (2, 5, 5)
    assert read_mask({"size": [1, 4], "counts": [0, 0, 0, 4, 0]}, "mask").counts == (0, 4)


def test_numbers_of_any_sign_and_size_survive_as_text() -> None:
    draw = random.Random(0)
    for longest in (2, 40, 2**30):
        runs = [draw.randrange(longest) for _ in range(200)]
        assert read_runs(write_runs(runs)) == runs


def test_arithmetic() -> None:
    left, right = np.zeros((4, 6), dtype=bool), np.zeros((4, 6), dtype=bool)
    left[1:3, 1:4] = right[2:4, 2:6] = True
    first, second, nothing = Mask.from_array(left), Mask.from_array(right), Mask.from_array(left & False)
    assert first.overlap(second) == (2, 12)
    assert first.iou(second) == pytest.approx(2 / 12)
    assert union([first, second]) == Mask.from_array(left | right)
    assert union([first]) == first
    assert union([nothing, nothing]) == nothing
    assert (nothing.iou(nothing), nothing.iou(first)) == (1.0, 0.0)
    with pytest.raises(DataError, match="6x4 and of 4x6"):
        first.overlap(Mask.from_array(left.T))


def test_a_mask_moves_with_its_picture() -> None:
    inside = np.zeros((4, 8), dtype=bool)
    inside[1:3, 2:6] = True
    mask = Mask.from_array(inside)
    # Twice as large on a canvas of 20 x 16, two pixels from the left and four from above.
    view = View(20, 16, 2.0, 2.0, 2.0, 4.0)
    moved = mask.forward(view)
    assert moved.size == (16, 20)
    assert moved.box == view.shown(Box(2, 1, 6, 3)) == Box(6, 6, 14, 10)
    assert moved.area == 4 * mask.area
    assert moved.backward(view, 4, 8) == mask
    # The second of two tiles shows the right half alone, and that is what comes back of it.
    tile = View(8, 4, 1.0, 1.0).tile(0, 1, 4)
    assert np.array_equal(mask.forward(tile).array(), inside[:, 4:])
    assert np.array_equal(mask.forward(tile).backward(tile, 4, 8).array(), inside & (np.arange(8) >= 4))
    with pytest.raises(DataError, match="8x4 pixels in a frame of 20x16"):
        mask.backward(view, 4, 8)


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ({"size": [3, 5]}, "counts is None"),
        ({"counts": [15]}, "size is None"),
        ({"size": [3, 5.0], "counts": [15]}, r"size is \[3, 5.0\]"),
        ({"size": [True, 5], "counts": [5]}, "size is"),
        ({"size": [0, 5], "counts": []}, "height 0"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "height 1000000000"),
        ({"size": [3, 5], "counts": [10**4000]}, "counts is"),
        ({"size": [3, 5], "counts": [14]}, "14 pixels in all; expected 5x3 = 15"),
        ({"size": [3, 5], "counts": [-1, 16]}, "a run length of -1"),
        ({"size": [3, 5], "counts": [15.0]}, "counts is"),
        ({"size": [3, 5], "counts": []}, "counts is"),
        ({"size": [3, 5], "counts": {}}, "counts is"),
        ({"size": [3, 5], "counts": ""}, "0 pixels in all"),
        ({"size": [3, 5], "counts": "?\n"}, r"character '\\n' at place 2"),
        ({"size": [3, 5], "counts": "P"}, "ends within a number"),
        ({"size": [3, 5], "counts": "o" * 10_000}, "more than 60 bits"),
        ({"size": [3, 5], "counts": "？"}, "character"),
        ({"size": [3, 5], "counts": "O@"}, "a run length of -1"),
    ],
    ids=repr,
)
def test_what_is_no_mask_is_named(value: dict[str, Any], wrong: str) -> None:
    with pytest.raises(DataError, match=f"^m: .*{wrong}"):
        read_mask(value, "m")


def test_a_mask_of_python_is_checked_too() -> None:
    for counts in ((), (6, 0), (-1, 7), (1, 2, 0, 3), (1, 2)):
        with pytest.raises(DataError):
            Mask(2, 3, counts)
    for shape in ((2, 3, 1), (0, 3)):
        with pytest.raises(DataError):
            Mask.from_array(np.zeros(shape, dtype=bool))
    assert json.loads(json.dumps(Mask(2, 3, (1, 5)).to_json())) == {"size": [2, 3], "counts": "15"}


def test_png_files(tmp_path: Path) -> None:
    inside = np.random.default_rng(3).random((7, 5)) < 0.5
    mask = Mask.from_array(inside)
    (tmp_path / "m.png").write_bytes(mask_png(mask))
    assert load_mask("m.png", root=tmp_path) == load_mask(mask_png(mask)) == mask
    grey = Image.fromarray(inside.astype(np.uint8))
    palette = grey.copy()
    palette.putpalette([0, 0, 0, 9, 9, 9] * 128)
    for picture in (grey, palette, grey.point(lambda v: 255 * v, mode="1"), Image.fromarray(inside.astype(np.uint16))):
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        assert load_mask(stream.getvalue()) == mask, picture.mode


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "LA"])
def test_a_png_with_colours_is_no_mask(kind: str) -> None:
    stream = io.BytesIO()
    Image.new(kind, (3, 2)).save(stream, "PNG")
    with pytest.raises(MediaError, match=f"colours or an alpha channel .{kind}."):
        load_mask(stream.getvalue())


def test_other_files_are_no_masks(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("L", (3, 2)).save(stream, "JPEG")
    cut = mask_png(Mask.from_array(np.random.default_rng(0).random((40, 40)) < 0.5))[:-40]
    for source in (stream.getvalue(), b"", b"\x89PNG\r\n\x1a\n", cut, "none.png", "../m.png", 7):
        with pytest.raises(MediaError):
            load_mask(source, root=tmp_path)

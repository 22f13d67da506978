"""Masks: which pixels of a picture belong to a thing, as COCO's run lengths.

Pixels are counted down the columns, from the left column to the right one; the first run is outside of the mask and
may be 0 long. In JSON a mask is `{"size": [height, width], "counts": ...}`, with the run lengths as a list or as
the text that pycocotools writes (`core/run_lengths.py`).

Shape legend: H/W pixels, K runs inside of a mask, P places where inside and outside change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sensorium.core.boxes import Box, View
from sensorium.core.errors import DataError
from sensorium.core.run_lengths import read_runs, write_runs

Ints = NDArray[np.int64]
MOST_PIXELS = 2**28
"""More than a picture may have; a mask of more is a mistake or an attack."""


@dataclass(frozen=True, slots=True)
class Mask:
    """A set of pixels of a picture of height x width.

    `counts` are lengths of runs, outside and inside by turns. Only the first may be 0, so that equal masks are equal.

    Raises:
        DataError: the lengths are not such, or do not add up to the size.
    """

    height: int
    width: int
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_size(self.height, self.width)
        if sum(self.counts) != self.height * self.width:
            raise DataError(f"run lengths of {sum(self.counts)} pixels in all",
                            expected=f"{self.width}x{self.height} = {self.height * self.width}")  # fmt: skip
        if self.counts[0] < 0 or min(self.counts[1:], default=1) < 1:
            raise DataError("a run length below 0, or 0 behind the first")

    @classmethod
    def from_array(cls, inside_HW: NDArray[Any]) -> Mask:
        """The mask of what is true, or not 0.

        Raises:
            DataError: the array is not of rows and columns.
        """
        if inside_HW.ndim != 2:
            raise DataError(f"a mask's array has shape {inside_HW.shape}", expected="(H, W)")
        height, width = inside_HW.shape
        _check_size(height, width)
        flat = inside_HW.astype(np.bool_).ravel(order="F")
        flips_P = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        return _of_flips(np.concatenate([[0], flips_P]) if flat[0] else flips_P, height, width)

    def array(self) -> NDArray[np.bool_]:
        """(H, W), true inside."""
        inside = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(inside, self.counts).reshape((self.height, self.width), order="F")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @property
    def area(self) -> int:
        """Pixels inside."""
        return sum(self.counts[1::2])

    @property
    def box(self) -> Box | None:
        """The smallest box around it; None: it is empty."""
        starts_K, ends_K = self.runs()
        if not len(starts_K):
            return None
        last_K = ends_K - 1
        left, right = int(starts_K[0]) // self.height, int(last_K[-1]) // self.height + 1
        if np.any(starts_K // self.height != last_K // self.height):
            # A run that goes on in the next column holds a lowest and a highest pixel.
            return Box(left, 0, right, self.height)
        top, bottom = int((starts_K % self.height).min()), int((last_K % self.height).max()) + 1
        return Box(left, top, right, bottom)

    def runs(self) -> tuple[Ints, Ints]:
        """Where runs inside begin, and the first pixels behind them, (K,) each."""
        ends = np.cumsum(np.asarray(self.counts, dtype=np.int64))
        inside = len(self.counts) // 2
        return ends[: 2 * inside : 2], ends[1 : 2 * inside : 2]

    def overlap(self, other: Mask) -> tuple[int, int]:
        """Pixels of the intersection and of the union.

        Raises:
            DataError: the masks are of two sizes.
        """
        shared = _in_at_least(2, (self, other)).area
        return shared, self.area + other.area - shared

    def iou(self, other: Mask) -> float:
        """Intersection over union; 1 for two empty masks (pycocotools: 0).

        Raises:
            DataError: the masks are of two sizes.
        """
        shared, either = self.overlap(other)
        return shared / either if either else 1.0

    def forward(self, view: View) -> Mask:
        """What the view's frame shows of it: a mask of the frame's size, a frame's pixel being inside if its
        middle is."""
        rows = _middles(view.height_px, 1 / view.scale_y, -view.top / view.scale_y)
        cols = _middles(view.width_px, 1 / view.scale_x, -view.left / view.scale_x)
        return Mask.from_array(_picked(self.array(), rows, cols))

    def backward(self, view: View, height: int, width: int) -> Mask:
        """Of a mask of the view's frame, the mask of the picture of height x width; what the frame does not show is
        outside.

        Raises:
            DataError: it is not of the frame's size.
        """
        if self.size != (view.height_px, view.width_px):
            raise DataError(f"a mask of {self.width}x{self.height} pixels in a frame of {view.width_px}x{view.height_px}")
        rows = _middles(height, view.scale_y, view.top)
        cols = _middles(width, view.scale_x, view.left)
        return Mask.from_array(_picked(self.array(), rows, cols))

    def to_json(self, *, as_text: bool = True) -> dict[str, Any]:
        """`{"size": ..., "counts": ...}`, the run lengths as text or as a list."""
        counts = write_runs(self.counts) if as_text else list(self.counts)
        return {"size": [self.height, self.width], "counts": counts}


def union(masks: Sequence[Mask]) -> Mask:
    """What lies in any of one or more masks.

    Raises:
        DataError: they are of several sizes.
    """
    return _in_at_least(1, masks)


def read_mask(value: Mapping[str, Any], where: str) -> Mask:
    """A mask from the `size` and `counts` of its JSON, in either form.

    Raises:
        DataError: they are none, naming what is wrong.
    """
    try:
        height, width = _read_size(value.get("size"))
        counts = _read_counts(value.get("counts"))
        if min(counts, default=0) < 0:
            raise DataError(f"a run length of {min(counts)}", expected="0 or more")
        if sum(counts) != height * width:
            raise DataError(f"run lengths of {sum(counts)} pixels in all", expected=f"{width}x{height} = {height * width}",
                            fix="size is [height, width]; run lengths go down the columns")  # fmt: skip
        # Two changes at one place, around a run of length 0, are none.
        places, times = np.unique(np.cumsum(np.asarray(counts, dtype=np.int64))[:-1], return_counts=True)
        return _of_flips(places[(times % 2 == 1) & (places < height * width)], height, width)
    except DataError as error:
        raise error.at(where) from None


def _read_size(value: Any) -> tuple[int, int]:
    sides = cast(list[Any], value) if isinstance(value, list | tuple) else []
    whole = [side for side in sides if isinstance(side, int) and not isinstance(side, bool)]
    if len(sides) != 2 or len(whole) != 2:
        raise DataError(f"size is {value!r:.200}", expected="[height, width] in pixels")
    _check_size(*whole)
    return whole[0], whole[1]


def _read_counts(value: Any) -> list[int]:
    if isinstance(value, str):
        return read_runs(value)
    if isinstance(value, bytes):
        # As pycocotools hands them out in memory.
        return read_runs(value.decode("latin-1"))
    counts = cast(list[Any], value) if isinstance(value, list | tuple) else []
    whole = [n for n in counts if isinstance(n, int) and not isinstance(n, bool) and n <= MOST_PIXELS]
    if not counts or len(whole) != len(counts):
        raise DataError(f"counts is {value!r:.200}", expected="a list of run lengths, or their text as pycocotools writes it")
    return whole


def _check_size(height: int, width: int) -> None:
    if min(height, width) < 1 or height * width > MOST_PIXELS:
        raise DataError(f"a mask of height {height} and width {width}",
                        expected=f"at least a pixel a side, and {MOST_PIXELS:,} in all at most")  # fmt: skip


def _of_flips(flips_P: Ints, height: int, width: int) -> Mask:
    """The mask of the places, in order, where inside and outside change."""
    ends = np.concatenate([flips_P, [height * width]])
    return Mask(height, width, tuple(np.diff(ends, prepend=0).tolist()))


def _in_at_least(least: int, masks: Sequence[Mask]) -> Mask:
    """Pixels that lie in so many of the masks, from their runs alone."""
    first = masks[0]
    for mask in masks:
        if mask.size != first.size:
            raise DataError(f"masks of {first.width}x{first.height} and of {mask.width}x{mask.height} pixels",
                            expected="masks of one picture")  # fmt: skip
    begun, ended = zip(*(mask.runs() for mask in masks), strict=True)
    places = np.concatenate([*begun, *ended])
    steps = np.repeat([1, -1], [len(places) // 2] * 2)
    order = np.argsort(places, kind="stable")
    levels = np.cumsum(steps[order])
    places = places[order]
    # What has changed once all changes at a place are counted.
    settled = np.diff(places, append=-1) != 0
    places, inside = places[settled], levels[settled] >= least
    flips = places[np.diff(inside, prepend=False)]
    return _of_flips(flips[flips < first.height * first.width], first.height, first.width)


def _middles(count: int, scale: float, shift: float) -> Ints:
    """The pixels in which the middles of so many lie, after they are scaled and shifted."""
    return np.floor((np.arange(count) + 0.5) * scale + shift).astype(np.int64)


def _picked(inside_HW: NDArray[np.bool_], rows: Ints, cols: Ints) -> NDArray[np.bool_]:
    """The pixels in these rows and columns; those that there are not are outside."""
    height, width = inside_HW.shape
    picked = np.zeros((len(rows), len(cols)), dtype=np.bool_)
    seen_rows, seen_cols = (rows >= 0) & (rows < height), (cols >= 0) & (cols < width)
    picked[np.ix_(seen_rows, seen_cols)] = inside_HW[np.ix_(rows[seen_rows], cols[seen_cols])]
    return picked

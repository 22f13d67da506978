"""Boxes and points, and where a picture lies in what an encoder sees.

Axes: x to the right, y down, (0, 0) the outer corner of the top left pixel, so that a picture of
w x h pixels is the box (0, 0, w, h).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from sensorium.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle by its top left (x0, y0) and bottom right corner (x1, y1); sides may be 0.

    The unit is the holder's: pixels of a picture, pixels of a frame, or parts of a frame.

    Raises:
        DataError: a number is not finite or the corners are reversed.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.numbers)):
            raise DataError(f"box {self.numbers} has a number that is not finite")
        if self.x0 > self.x1 or self.y0 > self.y1:
            raise DataError(
                f"box {self.numbers} has its corners reversed",
                expected="x0 <= x1 and y0 <= y1",
                fix="write (x0, y0, x1, y1): top left corner, then bottom right; not width and height",
            )

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        return self.x0, self.y0, self.x1, self.y1

    def moved(self, x: tuple[float, float], y: tuple[float, float]) -> Box:
        """Scaled and shifted: `x` and `y` are (scale > 0, shift)."""
        return Box(self.x0 * x[0] + x[1], self.y0 * y[0] + y[1],
                   self.x1 * x[0] + x[1], self.y1 * y[0] + y[1])  # fmt: skip

    def within(self, width: float, height: float) -> Box | None:
        """What of it lies in (0, 0, width, height); None: nothing, not even its border."""
        x0, y0 = max(self.x0, 0.0), max(self.y0, 0.0)
        x1, y1 = min(self.x1, width), min(self.y1, height)
        if x0 > x1 or y0 > y1:
            return None
        # A box with an inside that only touches the border is not seen.
        if (x0 == x1 and self.x0 < self.x1) or (y0 == y1 and self.y0 < self.y1):
            return None
        return Box(x0, y0, x1, y1)


@dataclass(frozen=True, slots=True)
class Point:
    """A place.

    Raises:
        DataError: a number is not finite.
    """

    x: float
    y: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.numbers)):
            raise DataError(f"point {self.numbers} has a number that is not finite")

    @property
    def numbers(self) -> tuple[float, float]:
        return self.x, self.y

    def moved(self, x: tuple[float, float], y: tuple[float, float]) -> Point:
        """Scaled and shifted: `x` and `y` are (scale, shift)."""
        return Point(self.x * x[0] + x[1], self.y * y[0] + y[1])

    def within(self, width: float, height: float) -> Point | None:
        """Itself, or None where it lies outside of (0, 0, width, height)."""
        return self if 0 <= self.x <= width and 0 <= self.y <= height else None


PlaceT = TypeVar("PlaceT", Box, Point)


@dataclass(frozen=True, slots=True)
class View:
    """Where a picture lies in a frame: an encoder's input, or a canvas that is cut into several.

    A picture's pixel x is the frame's x * scale_x + left, and the same downwards. What falls out of
    the frame has been cropped; what the picture does not cover has been padded.
    """

    width_px: int
    height_px: int
    scale_x: float
    scale_y: float
    left: float = 0.0
    top: float = 0.0

    def forward(self, place: PlaceT) -> PlaceT:
        """Pixels of the picture -> pixels of the frame; places outside are moved as well."""
        return place.moved((self.scale_x, self.left), (self.scale_y, self.top))

    def backward(self, place: PlaceT) -> PlaceT:
        """Pixels of the frame -> pixels of the picture."""
        x = 1 / self.scale_x, -self.left / self.scale_x
        return place.moved(x, (1 / self.scale_y, -self.top / self.scale_y))

    def shown(self, place: PlaceT) -> PlaceT | None:
        """What the frame shows of a place in the picture, in the frame's pixels; None: nothing."""
        return self.forward(place).within(self.width_px, self.height_px)

    def to_unit(self, place: PlaceT) -> PlaceT:
        """Pixels of the frame -> parts of its width and height."""
        return place.moved((1 / self.width_px, 0.0), (1 / self.height_px, 0.0))

    def from_unit(self, place: PlaceT) -> PlaceT:
        """Parts of the frame's width and height -> its pixels."""
        return place.moved((self.width_px, 0.0), (self.height_px, 0.0))

    def tile(self, row: int, col: int, size_px: int) -> View:
        """The view of the tile in this row and column of a canvas cut into squares."""
        left, top = self.left - col * size_px, self.top - row * size_px
        return View(size_px, size_px, self.scale_x, self.scale_y, left, top)


def read_boxes(value: Any, where: str) -> tuple[Box, ...]:
    """Boxes from JSON: a list of [x0, y0, x1, y1].

    Raises:
        DataError: it is none, naming the box.
    """
    try:
        return tuple(Box(*numbers) for numbers in _lists(value, 4))
    except DataError as error:
        raise error.at(where) from None


def read_points(value: Any, where: str) -> tuple[Point, ...]:
    """Points from JSON: a list of [x, y].

    Raises:
        DataError: it is none, naming the point.
    """
    try:
        return tuple(Point(*numbers) for numbers in _lists(value, 2))
    except DataError as error:
        raise error.at(where) from None


def _lists(value: Any, count: int) -> list[list[float]]:
    expected = f"a list of lists of {count} numbers"
    if not isinstance(value, list | tuple) or not value:
        raise DataError(f"value is {value!r}", expected=expected)
    found: list[list[float]] = []
    for item in cast(list[Any], value):
        numbers = cast(list[Any], item if isinstance(item, list | tuple) else [])
        real = [n for n in numbers if isinstance(n, int | float) and not isinstance(n, bool)]
        if len(real) != count or len(numbers) != count:
            raise DataError(f"one of them is {item!r}", expected=expected)
        try:
            found.append([float(n) for n in real])
        except OverflowError:
            # An integer of hundreds of digits is JSON too.
            raise DataError("a number is too large for a float", expected=expected) from None
    return found

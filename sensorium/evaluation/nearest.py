"""Which pictures of training are nearest to others? Copies would be at no distance.

Rows are looked through in the order in which a stage of seed 0 that has this source alone draws them, a few at a time, so that
memory does not grow with their number.

Shape legend: N pictures, M of training's, P values of a small picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as PILImage

from sensorium.core.errors import DataError
from sensorium.core.progress import progress
from sensorium.data.mixture import MixtureOrder
from sensorium.data.source import Source
from sensorium.media.image import load_image

COMPARED_PX, CHUNK = 32, 1000


@dataclass(frozen=True, slots=True)
class Nearest:
    """What was found, and among how many."""

    distance_N: np.ndarray[Any, Any]
    """Root mean square over 32 x 32 pixels and colours, of 255 = 1."""
    row_N: np.ndarray[Any, Any]
    """Of the source."""
    looked_through: int
    """Pictures."""


def nearest(pictures: Sequence[PILImage.Image], source: Source, among: int) -> Nearest:
    """The nearest of the first `among` rows that training draws; rows whose answer holds no picture count and are passed over.

    Raises:
        DataError: none of these rows has a picture, or one cannot be read.
    """
    wanted_NP = _small(pictures)
    distance_N, row_N, seen = np.full(len(wanted_NP), np.inf, dtype=np.float32), np.full(len(wanted_NP), -1), 0
    count = min(among, len(source))
    with progress("looking for the nearest of training", count) as meter:
        for done, rows, training in _chunks(source, count):
            if training:
                distance_NM = _distances(wanted_NP, _small(training))
                place_N = distance_NM.argmin(1)
                nearer_N = distance_NM.min(1) < distance_N
                distance_N = np.minimum(distance_N, distance_NM.min(1))
                row_N = np.where(nearer_N, np.array(rows)[place_N], row_N)
                seen += len(training)
            meter.update(done)
    if not seen:
        raise DataError(f"no picture in answers of {count} rows", expected="a source of drawings", where=source.name, fix="give another `trained_on`")
    return Nearest(distance_N, row_N, seen)


def picture_of_row(source: Source, row: int) -> PILImage.Image | None:
    """The first picture that a row's answers hold."""
    sample = source[row]
    values = (part.value for message in sample.messages if message.role == "assistant" for part in message.content if part.type == "image")
    value = next(values, None)
    if value is None or isinstance(value, PILImage.Image):
        return value
    return load_image(value, root=sample.root).to_pil()


def _chunks(source: Source, count: int) -> Iterator[tuple[int, list[int], list[PILImage.Image]]]:
    """How many rows were read, then those with pictures of the last so many, and the pictures."""
    order = MixtureOrder([len(source)], [1.0], seed=0)
    state = order.start()
    rows, pictures = list[int](), list[PILImage.Image]()
    for done in range(1, count + 1):
        row = order.next(state).row
        picture = picture_of_row(source, row)
        if picture is not None:
            rows.append(row)
            pictures.append(picture)
        if done % CHUNK == 0 or done == count:
            yield done, rows, pictures
            rows, pictures = [], []


def _small(pictures: Sequence[PILImage.Image]) -> np.ndarray[Any, Any]:
    """(N, P), around 0: grey is 0."""
    side = (COMPARED_PX, COMPARED_PX)
    small = [np.asarray(p.convert("RGB").resize(side, PILImage.Resampling.BOX), dtype=np.float32).ravel() for p in pictures]
    return np.stack(small) / 255 - np.float32(0.5)


def _distances(first_NP: np.ndarray[Any, Any], second_MP: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    squares = (first_NP**2).sum(1)[:, None] + (second_MP**2).sum(1)[None] - 2 * first_NP @ second_MP.T
    return np.sqrt(squares.clip(min=0) / first_NP.shape[1])

"""Sheets of drawings to look at: as they came, and each beside the training picture that is nearest to it.

Shape legend: N pictures, P values of a small picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw

from sensorium.core.atomic import atomic_path
from sensorium.data.drawn import DrawnScenesSource

COLUMNS, CELL_PX, LINE_PX = 8, 96, 12
COMPARED_PX = 32
NONE, GREY = "no picture", (120, 120, 120)
SHOWN = 20


def write_samples(path: Path, pictures: Sequence[PILImage.Image | None], captions: Sequence[str]) -> None:
    """Rows of eight, each picture above what was asked for; an empty cell that says so where there is none."""
    rows = -(-len(pictures) // COLUMNS)
    sheet = PILImage.new("RGB", (COLUMNS * CELL_PX, rows * (CELL_PX + LINE_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = i % COLUMNS * CELL_PX, i // COLUMNS * (CELL_PX + LINE_PX)
        if picture is None:
            draw.rectangle((x + 1, y + 1, x + CELL_PX - 2, y + CELL_PX - 2), outline=GREY)
            draw.text((x + CELL_PX // 2, y + CELL_PX // 2), NONE, fill=GREY, font_size=11, anchor="mm")
        else:
            sheet.paste(_cell(picture), (x + 1, y + 1))
        draw.text((x + 2, y + CELL_PX), caption[: CELL_PX // 5], fill="black", font_size=9)
    _save(sheet, path)


def write_neighbours(
    path: Path, pictures: Sequence[PILImage.Image], real: Sequence[PILImage.Image], among: int
) -> tuple[float, float]:
    """The first 20 drawings above their nearest training pictures.

    Args:
        real: held-out pictures, which cannot be copies: what distance to expect.
        among: how many of the training pictures, from the first on, are looked through.

    Returns:
        Median distance of drawings and of real pictures to the nearest: root mean square over 32 x 32 pixels and colours,
        of 255 = 1.
    """
    source = DrawnScenesSource().open()
    training = [source[i].messages[1].content[0].value for i in range(min(among, len(source)))]
    training_NP = _small(training)
    distance_NM, real_NM = _distances(_small(pictures), training_NP), _distances(_small(real), training_NP)
    nearest_N = distance_NM.argmin(1)
    count = min(SHOWN, len(pictures))
    sheet = PILImage.new("RGB", (min(count, 10) * CELL_PX, -(-count // 10) * (2 * CELL_PX + LINE_PX)), "white")
    for i in range(count):
        x, y = i % 10 * CELL_PX, i // 10 * (2 * CELL_PX + LINE_PX)
        sheet.paste(_cell(pictures[i]), (x + 1, y + 1))
        sheet.paste(_cell(training[int(nearest_N[i])]), (x + 1, y + CELL_PX))
    _save(sheet, path)
    return float(np.median(distance_NM.min(1))), float(np.median(real_NM.min(1)))


def _small(pictures: Sequence[PILImage.Image]) -> np.ndarray[Any, Any]:
    """(N, P), 0..1."""
    side = (COMPARED_PX, COMPARED_PX)
    return np.stack([np.asarray(p.convert("RGB").resize(side, PILImage.Resampling.BOX), dtype=np.float32).ravel() / 255 for p in pictures])


def _distances(first_NP: np.ndarray[Any, Any], second_MP: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    squares = (first_NP**2).sum(1)[:, None] + (second_MP**2).sum(1)[None] - 2 * first_NP @ second_MP.T
    return np.sqrt(squares.clip(min=0) / first_NP.shape[1])


def _cell(picture: PILImage.Image) -> PILImage.Image:
    return picture.convert("RGB").resize((CELL_PX - 2, CELL_PX - 2), PILImage.Resampling.BICUBIC)


def _save(sheet: PILImage.Image, path: Path) -> None:
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")

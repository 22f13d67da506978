"""Sheets of drawings to look at: as they came, and each beside the training picture that is nearest to it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from sensorium.core.atomic import atomic_path

COLUMNS, CELL_PX, LINE_PX, LETTER_PX = 8, 96, 11, 9
LINES = 2
"""Of a caption: two coloured shapes fit."""
NONE, GREY = "no picture", (120, 120, 120)
SHOWN = 20
PAIR_COLUMNS = 10


def write_samples(path: Path, pictures: Sequence[PILImage.Image | None], captions: Sequence[str]) -> None:
    """Rows of eight, each picture above what was asked for; an empty cell that says so where there is none."""
    height = CELL_PX + LINES * LINE_PX
    sheet, draw = _blank(COLUMNS, -(-len(pictures) // COLUMNS), height)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = i % COLUMNS * CELL_PX, i // COLUMNS * height
        if picture is None:
            draw.rectangle((x + 1, y + 1, x + CELL_PX - 2, y + CELL_PX - 2), outline=GREY)
            draw.text((x + CELL_PX // 2, y + CELL_PX // 2), NONE, fill=GREY, font_size=11, anchor="mm")
        else:
            sheet.paste(_cell(picture), (x + 1, y + 1))
        _write(draw, (x, y + CELL_PX), caption_lines(caption))
    _save(sheet, path)


def write_neighbours(
    path: Path, drawn: Sequence[PILImage.Image], nearest: Sequence[PILImage.Image], captions: Sequence[str], apart: Sequence[float]
) -> None:
    """The first 20 drawings, each above its nearest training picture; below both what was asked for, and how far apart they are."""
    count, height = min(SHOWN, len(drawn)), 2 * CELL_PX + (LINES + 1) * LINE_PX
    sheet, draw = _blank(min(count, PAIR_COLUMNS), -(-count // PAIR_COLUMNS), height)
    for i in range(count):
        x, y = i % PAIR_COLUMNS * CELL_PX, i // PAIR_COLUMNS * height
        sheet.paste(_cell(drawn[i]), (x + 1, y + 1))
        sheet.paste(_cell(nearest[i]), (x + 1, y + CELL_PX))
        _write(draw, (x, y + 2 * CELL_PX), [*caption_lines(captions[i]), f"{apart[i]:.3f} away"])
    _save(sheet, path)


def caption_lines(caption: str) -> list[str]:
    """A caption on at most two lines as wide as a picture, parted at its commas where that will do; what still is too long ends in dots."""
    pieces = [piece if _fits(piece) else "" for piece in caption.replace(", ", ",\n").splitlines()]
    if not _fits(caption) and len(pieces) <= LINES and all(pieces):
        return pieces
    lines = [""]
    for word in caption.split():
        longer = f"{lines[-1]} {word}".strip()
        if _fits(longer) or not lines[-1] or len(lines) == LINES:
            lines[-1] = longer
        else:
            lines.append(word)
    return [line if _fits(line) else _cut(line) for line in lines]


def _cut(line: str) -> str:
    """As much of it as fits in front of dots."""
    return next((f"{line[:n]}…" for n in range(len(line), 0, -1) if _fits(f"{line[:n]}…")), "…")


def _fits(line: str) -> bool:
    return _font().getlength(line) <= CELL_PX - 4


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(LETTER_PX)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[str]) -> None:
    for i, line in enumerate(lines):
        draw.text((place[0] + 2, place[1] + i * LINE_PX), line, fill="black", font=_font())


def _blank(columns: int, rows: int, height_px: int) -> tuple[PILImage.Image, ImageDraw.ImageDraw]:
    sheet = PILImage.new("RGB", (columns * CELL_PX, rows * height_px), "white")
    return sheet, ImageDraw.Draw(sheet)


def _cell(picture: PILImage.Image) -> PILImage.Image:
    return picture.convert("RGB").resize((CELL_PX - 2, CELL_PX - 2), PILImage.Resampling.BICUBIC)


def _save(sheet: PILImage.Image, path: Path) -> None:
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")

"""Pictures whose things have places, as documents to draw from: of each thing its phrase, its place as a picture and a cut-out, then the whole.

Source: Emu2 (arXiv:2312.13286, 2.3.2); github.com/baaivision/Emu, Emu2/README.md and demo/frontend/libs/meta.py, for the tags and for how a
place is drawn. How many places and cut-outs are left out is not published, nor are their changes of backgrounds, which are not made here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from PIL import Image as PILImage
from PIL import ImageDraw
from pydantic import Field

from sensorium.core.boxes import Box, read_boxes
from sensorium.core.config import as_mapping
from sensorium.core.errors import DataError
from sensorium.core.hashing import stable_int
from sensorium.core.sample import Message, Part, Sample
from sensorium.data.config import AnySource, SourceConfig
from sensorium.data.source import Over, Source
from sensorium.media.image import load_image
from sensorium.text.render import TOKEN

BEGIN, PHRASE, PLACE = "<grounding>", ("<phrase>", "</phrase>"), ("<object>", "</object>")


class LaidOutSource(SourceConfig):
    """Another source, whose rows hold one picture and an answer of text and boxes with phrases."""

    kind: Literal["laid_out"] = "laid_out"
    source: AnySource
    unplaced: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of things whose place is left out."""
    unseen: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of things whose cut-out is left out."""
    side_px: int = Field(default=448, ge=8)
    """Of the pictures of places."""
    seed: int = 0

    def open(self) -> Source:
        return LaidOut(self.source.open(), self)


class LaidOut(Over):
    """A source's Samples as such documents; what is left out of a row does not change."""

    def __init__(self, source: Source, config: LaidOutSource) -> None:
        super().__init__(source, "laid out")
        self._config = config

    def __getitem__(self, index: int) -> Sample:
        sample = self._source[index]
        said = [part for message in sample.messages if message.role == "assistant" for part in message.content]
        media = list(sample.media())
        if len(media) != 1 or media[0].type != "image" or not any(part.type == "boxes" for part in said):
            raise DataError("no picture and boxes in it", expected="one picture, and an answer with boxes", where=self.where(index))
        picture = load_image(media[0].value, root=sample.root).to_pil()
        rng = random.Random(stable_int("laid out", self._config.seed, index))
        parts = [Part(TOKEN, BEGIN)]
        for part in said:
            parts += self._thing(part.value, picture, rng, self.where(index)) if part.type == "boxes" else [part] if part.type == "text" else []
        return replace(sample, messages=(Message("assistant", (*parts, media[0])),), answers=(), separate_turns=False)

    def _thing(self, value: Any, picture: PILImage.Image, rng: random.Random, where: str) -> Iterator[Part]:
        """A thing, or several that share a phrase."""
        row = as_mapping(value) or {"places": value}
        if row.get("phrase"):
            yield from (Part(TOKEN, PHRASE[0]), Part("text", row["phrase"]), Part(TOKEN, PHRASE[1]))
        for box in read_boxes(row.get("places"), where):
            placed, seen = (rng.random() >= share for share in (self._config.unplaced, self._config.unseen))
            if placed:
                drawn = drawn_place(box, picture.size, self._config.side_px)
                yield from (Part(TOKEN, PLACE[0]), Part("image", drawn), Part(TOKEN, PLACE[1]))
            if seen:
                yield Part("image", cut_out(box, picture))


def drawn_place(box: Box, size: tuple[int, int], side_px: int) -> PILImage.Image:
    """A white frame on black, three pixels wide around the box's edges.

    Args:
        size: width and height of the picture that the box lies in.
    """
    place = PILImage.new("RGB", (side_px, side_px))
    x0, y0, x1, y1 = (round(n * side_px / size[i % 2]) for i, n in enumerate(box.numbers))
    ImageDraw.Draw(place).rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=(255, 255, 255), width=3)
    return place


def cut_out(box: Box, picture: PILImage.Image) -> PILImage.Image:
    """What a box holds of a picture, at least a pixel of it."""
    left, top = (min(max(math.floor(n), 0), most - 1) for n, most in zip((box.x0, box.y0), picture.size, strict=True))
    right, bottom = (min(max(math.ceil(n), low + 1), most) for n, low, most in zip((box.x1, box.y1), (left, top), picture.size, strict=True))
    return picture.crop((left, top, right, bottom))

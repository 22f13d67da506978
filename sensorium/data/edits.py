"""Pictures with an edit whose outcome is known: editing (picture + instruction -> picture) without anybody's drawings."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from PIL import Image as PILImage
from PIL import ImageEnhance, ImageFilter, ImageOps

from sensorium.core.errors import DataError
from sensorium.core.hashing import stable_int
from sensorium.core.sample import Message, Part, Sample
from sensorium.data.config import AnySource, SourceConfig
from sensorium.data.source import Over, Source
from sensorium.media.image import load_image

Edit = Callable[[PILImage.Image], PILImage.Image]
EDITS: dict[str, tuple[str, Edit]] = {
    "make it black and white": ("The picture without colours.", lambda picture: ImageOps.grayscale(picture).convert("RGB")),
    "turn it upside down": ("The picture upside down.", ImageOps.flip),
    "mirror it": ("The picture as in a mirror.", ImageOps.mirror),
    "invert its colours": ("The picture with all colours inverted.", ImageOps.invert),
    "make it darker": ("The picture, darker.", lambda picture: ImageEnhance.Brightness(picture).enhance(0.5)),
    "blur it": ("The picture, blurred.", lambda picture: picture.filter(ImageFilter.GaussianBlur(max(picture.size) / 50))),
}
"""Instruction -> what there is to see then, and what makes it."""
# MGIE's question (github.com/apple/ml-mgie, mgie_train.py).
QUESTION = "what will this image be like if '{edit}'\n"


class EditsSource(SourceConfig):
    """The first picture of each Sample of another source, and one edit of it."""

    kind: Literal["edits"] = "edits"
    source: AnySource
    seed: int = 41

    def open(self) -> Source:
        return Edited(self.source.open(), self.seed)


class Edited(Over):
    """A source's pictures, edited."""

    def __init__(self, source: Source, seed: int) -> None:
        super().__init__(source, "edited")
        self._seed = seed

    def __getitem__(self, index: int) -> Sample:
        sample = self._source[index]
        picture = next((part for message in sample.messages for part in message.content if part.type == "image"), None)
        if picture is None:
            raise DataError("no picture to edit", where=self.where(index))
        rng = random.Random(stable_int("edits", self._seed, self._source.name, index))
        edit, seen = rng.choice(list(EDITS.items()))
        edited = seen[1](load_image(picture.value, root=sample.root).to_pil())
        asked = Message("user", (Part("text", QUESTION.format(edit=edit)), picture))
        said = Message("assistant", (Part("text", f"{seen[0]} "), Part("image", edited)))
        return replace(sample, messages=(asked, said))

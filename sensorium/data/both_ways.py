"""Pairs of a picture, or a video, and its text as documents that are learned as a whole, the medium first or last.

What teaches a model to describe then teaches it to draw. Sources: Emu (arXiv:2307.05222), SEED-LLaMA (arXiv:2310.01218).
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Literal

from pydantic import Field

from sensorium.core.errors import DataError
from sensorium.core.sample import Message, Part, Sample
from sensorium.data.config import AnySource, SourceConfig
from sensorium.data.source import Over, Source


class BothWaysSource(SourceConfig):
    """Another source, whose rows hold one picture or video and an answer about it; what was asked is left out."""

    kind: Literal["both_ways"] = "both_ways"
    source: AnySource
    last: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of rows whose medium stands behind the text."""
    seed: int = 0

    def open(self) -> Source:
        return BothWays(self.source.open(), self.last, self.seed)


class BothWays(Over):
    """A source's Samples as documents; which way round a row stands does not change."""

    def __init__(self, source: Source, last: float, seed: int) -> None:
        super().__init__(source, "both ways")
        self._last = last
        self._seed = seed

    def __getitem__(self, index: int) -> Sample:
        sample = self._source[index]
        media = [part for part in sample.media() if part.type in ("image", "video")]
        said = [part for message in sample.messages if message.role == "assistant" for part in message.content if part.type == "text"]
        if len(media) != 1 or not said:
            raise DataError(f"{len(media)} pictures and videos and {len(said)} texts of answers", expected="one of them and its text",
                            where=self.where(index))  # fmt: skip
        text = Part("text", "".join(part.value for part in said).strip())
        behind = random.Random(f"{self._seed}/{index}").random() < self._last
        pair = (text, media[0]) if behind else (media[0], text)
        return replace(sample, messages=(Message("assistant", pair),), answers=(), separate_turns=False)

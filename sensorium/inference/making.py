"""From signal tokens in an answer to media: one more forward pass over prompt and answer, the output projector, the generator.

Shape legend: T tokens, D width, L condition tokens, C condition width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from PIL import Image

from sensorium.core.batch import Example
from sensorium.core.hands import Made, MadeKind, Making
from sensorium.core.sample import Part
from sensorium.model.device import to_device
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.processing.spoken import spoken_parts


@dataclass(frozen=True, slots=True)
class Found:
    """A medium that an answer asks for."""

    kind: MadeKind
    start: int
    """Place of its first signal token among the answer's ids."""


@dataclass(slots=True)
class Maker:
    """Makes the media of answers."""

    model: MultimodalModel
    processor: Processor
    making: Making = field(default_factory=Making)

    def follows(self) -> dict[int, int]:
        """Which token must come behind each signal token but the last: half a signal means nothing."""
        return {a: b for ids in self.processor.signals.values() for a, b in pairwise(ids)}

    @property
    def answers_in_parts(self) -> bool:
        """Whether there may be more in an answer than text."""
        return bool(self.processor.signals) or self.processor.box_format is not None

    def find(self, ids: Sequence[int]) -> list[Found]:
        """The media of an answer; one whose signal tokens the end of the answer cut off is none."""
        found: list[Found] = []
        for kind, signals in self.processor.signals.items():
            found += [Found(cast(MadeKind, kind), i) for i in range(len(ids)) if tuple(ids[i : i + len(signals)]) == signals]
        return sorted(found, key=lambda one: one.start)

    def parts(self, prompt: Example, ids: Sequence[int]) -> tuple[Part, ...]:
        """The answer's parts in order: text, and the media that it asks for.

        Raises:
            ConfigError, WeightsError: a generator cannot be had.
            CancelledError: somebody asked to stop.
        """
        parts: list[Part] = []
        place = 0
        wanted = self.find(ids)
        for found, made in zip(wanted, self._make(prompt, ids, wanted), strict=True):
            parts += self._spoken(prompt, ids[place : found.start])
            parts.append(Part(found.kind, as_value(made)))
            place = found.start + len(self.processor.signals[found.kind])
        parts += self._spoken(prompt, ids[place:])
        return tuple(parts) or (Part("text", ""),)

    def _spoken(self, prompt: Example, ids: Sequence[int]) -> list[Part]:
        signals = {i for one in self.processor.signals.values() for i in one}
        said = [i for i in ids if i not in signals]
        return spoken_parts(said, prompt.seen, self.processor.box_format, self.processor.tokenizer)

    @torch.inference_mode()
    def _make(self, prompt: Example, ids: Sequence[int], wanted: Sequence[Found]) -> list[Made]:
        if not wanted:
            return []
        whole = extended(prompt, ids)
        batch = to_device(collate([[whole]], self.processor.tokenizer.pad_id), self.model.device)
        hidden_BTD = self.model(batch).hidden_BTD
        made: list[Made] = []
        for number, found in enumerate(wanted):
            condition_BLC = self.model.condition(found.kind, hidden_BTD, batch.input_ids_BT, [(0, len(prompt) + found.start)])
            # Two pictures of one answer are two draws.
            making = replace(self.making, seed=self.making.seed + number)
            made += self.model.generators[found.kind].generate(condition_BLC, making=making)
        return made


def extended(prompt: Example, ids: Sequence[int]) -> Example:
    """A prompt with tokens of text behind it."""
    count = len(ids)
    index = prompt.media_index[-1] if prompt.media_index else 0
    branch = prompt.branches[-1:] * count
    furthest = max((max(place) for place in prompt.places), default=-1)
    return replace(
        prompt,
        input_ids=[*prompt.input_ids, *ids],
        learn=[*prompt.learn, *([False] * count)],
        media_index=[*prompt.media_index, *([index] * count)],
        branches=[*prompt.branches, *branch],
        places=[*prompt.places, *((furthest + 1 + i,) * 3 for i in range(count))] if prompt.places else [],
    )


def as_value(made: Made) -> Image.Image | Made:
    """What a part in memory holds: of a picture the picture, of all else what was made, with its rates."""
    return Image.fromarray(np.ascontiguousarray(made.array)) if made.kind == "image" else made

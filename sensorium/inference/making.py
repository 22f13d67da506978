"""From signal tokens in an answer to media: one more forward pass over prompt and answer, the output projector, the generator.

Shape legend: T tokens, D width, L condition tokens, C condition width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from sensorium.core.batch import Example
from sensorium.core.errors import DataError
from sensorium.core.hands import Made, MadeKind, Making
from sensorium.core.masks import Mask
from sensorium.core.sample import Part, Sample
from sensorium.media.image import load_image
from sensorium.model.device import to_device
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.masks import mask_part
from sensorium.processing.processor import Processor
from sensorium.processing.signals import media_seen
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
        if not self.model.config.hands:
            return {}
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

    def parts(self, prompt: Example, ids: Sequence[int], asked: Sample) -> tuple[Part, ...]:
        """The answer's parts in order: text, places in the pictures, and the media that it asks for.

        Args:
            asked: what `prompt` was made of; masks and edits are of its last picture.

        Raises:
            ConfigError, WeightsError: a generator cannot be had.
            CancelledError: somebody asked to stop.
        """
        parts: list[Part] = []
        place = 0
        wanted = self.find(ids)
        for found, made in zip(wanted, self._make(prompt, ids, wanted, asked), strict=True):
            parts += self._spoken(prompt, ids[place : found.start])
            parts.append(as_part(made, len(prompt.seen)))
            place = found.start + len(self.processor.signals[found.kind])
        parts += self._spoken(prompt, ids[place:])
        return tuple(parts) or (Part("text", ""),)

    def _spoken(self, prompt: Example, ids: Sequence[int]) -> list[Part]:
        signals = {i for one in self.processor.signals.values() for i in one}
        said = [i for i in ids if i not in signals]
        return spoken_parts(said, prompt.seen, self.processor.box_format, self.processor.tokenizer)

    @torch.inference_mode()
    def _make(self, prompt: Example, ids: Sequence[int], wanted: Sequence[Found], asked: Sample) -> list[Made]:
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
            if self.model.config.hands[found.kind].generator.looks:
                making = replace(making, pictures=(self._last_picture(asked),))
            generator = self.model.generators.on(found.kind, self.model.device)
            made += generator.generate(condition_BLC, negative_BLC=self._negative(found.kind), making=making)
        return made

    def _negative(self, kind: MadeKind) -> torch.Tensor | None:
        """What a projector has learnt to lead away from; None: the generator's own."""
        return self.model.negative(kind, self.processor.signals[kind])

    def _last_picture(self, asked: Sample) -> np.ndarray[Any, Any]:
        """Of what the model looks at, (H, W, 3).

        Raises:
            DataError: there is none, so that nothing can be masked or edited.
        """
        pictures = [part for _, part in media_seen(asked, self.processor.config.hands) if part.type == "image"]
        if not pictures:
            raise DataError("an answer with a mask or an edited picture to a conversation without one",
                            expected="a picture in front of the question")  # fmt: skip
        return load_image(pictures[-1].value, root=asked.root, limits=self.processor.limits).pixels_HWC


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


def as_part(made: Made, picture: int) -> Part:
    """The part of a message: a picture as one of PIL's, a mask in run lengths, sound and video as they were made.

    Args:
        picture: number of the picture that a mask is of.
    """
    if made.kind == "mask":
        return mask_part(Mask.from_array(made.array), picture=picture)
    return Part(made.kind, Image.fromarray(np.ascontiguousarray(made.array)) if made.kind == "image" else made)

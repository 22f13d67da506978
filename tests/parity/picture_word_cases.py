"""A checkpoint that reads and writes pictures as tokens, as the reference and as ours, and what the reference is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from anyres_cases import Case, Prompt, picture
from picture_word_models import FAMILIES, IMAGE, Family

from sensorium.api import Model
from sensorium.core.batch import Example
from sensorium.core.picture_words import CODES
from sensorium.processing.processor import Processor

SEED = 11


@dataclass(frozen=True)
class Whole:
    """One checkpoint, as the reference and as ours."""

    name: str
    folder: Path
    theirs: Any
    ours: Model
    cases: dict[str, Case]

    @property
    def family(self) -> Family:
        return FAMILIES[self.name]


def pictures(prompt: Prompt) -> list[Any]:
    return [picture(part) for part in prompt if not isinstance(part, str)]


def spans(processor: Processor, example: Example) -> list[int]:
    """The places of codes, and those of the tokens that close their rows."""
    places = [*example.slots.get(CODES, []), *example.slots.get("image", [])]
    row_end = processor.frames.shape.row_end if processor.frames else None
    closing = processor.tokenizer.special_id(row_end) if row_end else -1
    return [*places, *(i for i, token in enumerate(example.input_ids) if token == closing)]


def given(processor: Processor, prompt: Prompt, example: Example, theirs: Any, eyes: Any) -> dict[str, Any]:
    """Ids with the reference's image token where codes and ends of rows go; or the words themselves that the reference has
    for each of several pictures. Together it pads them to the largest, so that Emu3's codes are others at the borders."""
    ids_1T = torch.tensor([example.input_ids])
    if "image" in example.media:
        # Theirs are padded with another colour: those that ours sees.
        encoder: Any = processor.config.lane("image").encoder.build()
        ids_1T[0, spans(processor, example)] = theirs.config.image_token_id
        return {"input_ids": ids_1T, "attention_mask": torch.ones_like(ids_1T),
                "pixel_values": encoder.normalise(example.media["image"].pixels_NCHW)}  # fmt: skip
    seen = [dict(eyes([one], return_tensors="pt")) for one in pictures(prompt)] if example.media else []
    places = sorted(spans(processor, example))
    given = {"input_ids": ids_1T, "attention_mask": torch.ones_like(ids_1T)}
    if len(seen) == 1:
        ids_1T[0, places] = processor.tokenizer.special_id(IMAGE)
        return given | seen[0]
    if seen:
        ids_1T[0, places] = torch.cat([theirs.model.get_image_tokens(**one).flatten() for one in seen]).long()
    return given


def plain_logits(whole: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """What the head says of every word: Chameleon's class hides its words of codes."""
    hidden_1TD = whole.model(**inputs, use_cache=False).last_hidden_state
    return whole.lm_head(hidden_1TD)[0]


class Chance:
    """A reference's scores, of which one code is taken by chance with a seed; the likeliest at temperature 0, and what is forced as it is."""

    def __init__(self, words: list[int], temperature: float) -> None:
        self.words, self.temperature = words, temperature
        self.drawn = torch.Generator().manual_seed(SEED)

    def __call__(self, ids_1T: torch.Tensor, scores_1V: torch.Tensor) -> torch.Tensor:
        del ids_1T
        codes_C = scores_1V[0, self.words]
        if not self.temperature or bool(codes_C.isinf().all()):
            return scores_1V
        code = int(torch.multinomial((codes_C / self.temperature).softmax(-1)[None], 1, generator=self.drawn))
        return torch.full_like(scores_1V, float("-inf")).index_fill(1, torch.tensor(self.words[code]), 0.0)


def as_picture(pixels_NCHW: torch.Tensor, plan: Any) -> torch.Tensor:
    if plan.patches is None:
        return pixels_NCHW
    rows = pixels_NCHW.unflatten(0, (plan.patches.h, plan.patches.w))
    return torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)[None]

"""Pictures of many shapes, prompts around them, and what our side makes of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage

from sensorium.core.batch import Example
from sensorium.core.sample import Sample, parse_sample
from sensorium.model.config import ModelConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.text.byte_tokenizer import byte_tokenizer

Prompt = list[str | tuple[int, int]]
# Width x height: squares, both extremes, sizes of exactly one canvas, thinner than one token, and
# one whose side on the map is a whole number that floats miss by less than 1e-7.
SIZES = [(40, 40), (100, 30), (30, 100), (28, 28), (56, 56), (7, 90), (33, 70), (200, 3), (3, 200),
         (1, 1), (57, 55), (83, 29), (61, 100), (300, 299), (500, 4), (188, 47)]  # fmt: skip
# A conversation is text and pictures in turn: at the start, in the middle, at the end, side by side.
PROMPTS: list[Prompt] = [
    [(100, 30), "what is it?"],
    ["see ", (33, 70), " and tell"],
    ["name it: ", (30, 100)],
    ["a ", (28, 28), (57, 55), " or ", (200, 3), "?"],
    [(3, 200), (40, 40)],
    ["no picture at all"],
]


def picture(size: tuple[int, int]) -> PILImage.Image:
    """Noise, on which every difference in resampling shows."""
    width, height = size
    pixels_HWC = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3))
    return PILImage.fromarray(pixels_HWC.astype(np.uint8), "RGB")


def our_processor(config: ModelConfig) -> Processor:
    """A template without words, so that a picture may stand first or last."""
    return Processor(config, byte_tokenizer(), template="caption")


def talk(prompt: Prompt, *answers: str) -> Sample:
    content = [{"type": "text", "text": p} if isinstance(p, str) else
               {"type": "image", "image": picture(p)} for p in prompt]  # fmt: skip
    turns = [{"role": "user", "content": content}, *({"role": "assistant", "content": a} for a in answers)]
    return parse_sample({"messages": turns})


def encode(config: ModelConfig, prompt: Prompt) -> Example:
    return our_processor(config).encode(talk(prompt))


def our_logits(model: MultimodalModel, rows: list[list[Example]], **options: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(collate(rows, pad_id=0, **options)).hidden_BTD)


def assert_equal(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@dataclass(frozen=True)
class Case:
    """A prompt as our Example and as the reference's inputs, with the logits that it gives them."""

    example: Example
    inputs: dict[str, Any]
    logits_TV: torch.Tensor


def cases_of(
    theirs: Any,
    ours: MultimodalModel,
    prompts: Sequence[Prompt],
    inputs: Callable[[Prompt, Example], dict[str, Any]],
) -> list[Case]:
    """Each prompt, asked of the reference alone."""
    made: list[Case] = []
    for prompt in prompts:
        example = encode(ours.config, prompt)
        given = inputs(prompt, example)
        with torch.no_grad():
            made.append(Case(example, given, theirs(**given).logits[0]))
    return made


def layouts(ours: MultimodalModel, cases: Sequence[Case]) -> Iterator[tuple[str, Case, torch.Tensor]]:
    """Our logits of each case: alone, padded on either side, and packed into one row."""
    for case in cases:
        yield "alone", case, our_logits(ours, [[case.example]])[0]
    for left in (False, True):
        rows = our_logits(ours, [[case.example] for case in cases], pad_left=left)
        for row_TV, case in zip(rows, cases, strict=True):
            length = len(case.example)
            yield ("left" if left else "right"), case, row_TV[-length:] if left else row_TV[:length]
    packed = our_logits(ours, [[case.example for case in cases]])[0]
    for got_TV, case in zip(packed.split([len(case.example) for case in cases]), cases, strict=True):
        yield "packed", case, got_TV

"""What IDEFICS' own processor makes of text and pictures: ids, pixels, and which token sees which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.core.sample import parse_sample
from sensorium.encoders.idefics_vit import IdeficsVitConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.processor import Processor
from sensorium.recipes.idefics_9b import tiny
from sensorium.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def built() -> tuple[MultimodalModel, Tokenizer]:
    return build_pretrained(tiny().model)


@pytest.fixture(scope="module")
def theirs(built: tuple[MultimodalModel, Tokenizer]) -> Any:
    from transformers import IdeficsImageProcessor, IdeficsProcessor, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=built[1].rust, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|im_start|>"
    )
    return IdeficsProcessor(IdeficsImageProcessor(image_size=32), tokenizer)


def picture(seed: int, height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


ONE, TALL, WIDE = picture(0, 32, 32), picture(1, 200, 9), picture(2, 40, 301)
CASES: dict[str, list[Any]] = {
    "start": [ONE, "A cat."],
    "middle": ["Look:", TALL, "A cat."],
    "end": ["Look:", WIDE],
    "two": ["Look:", ONE, "A cat.", WIDE, "A dog."],
    "side by side": [ONE, TALL, WIDE, "Three."],
}


@pytest.mark.parametrize("case", CASES)
def test_ids_pixels_and_who_sees_what(
    case: str, theirs: Any, built: tuple[MultimodalModel, Tokenizer], record: Callable[..., None]
) -> None:
    items, (model, tokenizer) = CASES[case], built
    expected = theirs(text=[items], return_tensors="pt", add_end_of_utterance_token=False)
    content = [{"type": "text", "text": i} if isinstance(i, str) else {"type": "image", "image": i} for i in items]
    first = Tokenizer(tokenizer.rust, bos_id=tokenizer.special_id("<|endoftext|>"), eos_id=2, pad_id=1)
    got = Processor(model.config, first).encode(
        parse_sample({"messages": [{"role": "user", "content": content}]}), answer_next=True
    )
    assert got.input_ids == expected["input_ids"][0].tolist()
    sees_TM = expected["image_attention_mask"][0]
    index = torch.where(sees_TM.any(dim=1), sees_TM.float().argmax(dim=1) + 1, 0)
    assert got.media_index == index.tolist()
    pixels = IdeficsVitConfig.tiny().build().normalise(got.media["image"].pixels_NCHW)
    record("idefics", "pixels", "ids", ours=pixels, theirs=expected["pixel_values"][0])

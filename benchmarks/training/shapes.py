"""The models and samples that all trainers of the comparison share.

Weights are random, in transformers' own `LlavaForConditionalGeneration` layout; texts are made-up words of a
tokenizer with one token a word, so that no side is measured by its tokenizer. Lengths are ragged: questions of 4 to 24
words and answers log-normal around 32, or where `short_texts` is set 2 to 10 and around 15, as captions are.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

VOCABULARY = 49_152
SPECIALS = ("<pad>", "<s>", "</s>", "<image>")


@dataclass(frozen=True, slots=True)
class Shape:
    """One size of model, and how many samples make one optimiser step."""

    name: str
    picture_px: int
    vision: dict[str, Any]
    text: dict[str, Any]
    batch: int
    """Samples a step of the peers; ours packs about as many."""
    row_tokens: int
    rows: int
    """Packed rows a step of ours."""
    short_texts: bool = False


TINY = Shape(
    "tiny", 128,
    {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6,
     "image_size": 128, "patch_size": 16},
    {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "num_attention_heads": 4,
     "num_key_value_heads": 4},
    batch=16, row_tokens=1024, rows=2, short_texts=True,
)  # fmt: skip
"""Texts of the length at which a sample's least arithmetic is 4.3 and 6.4 GFLOP in stages 1 and 2."""
LONGER = replace(TINY, name="tiny-longer", short_texts=False)
SMALL = Shape(
    "222M", 224,
    {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
     "image_size": 224, "patch_size": 16},
    {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
     "num_key_value_heads": 3},
    batch=8, row_tokens=1024, rows=2,
)  # fmt: skip
LARGE = Shape(
    "7B", 336,
    {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
     "image_size": 336, "patch_size": 16},
    {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
     "num_key_value_heads": 32},
    batch=8, row_tokens=4096, rows=1,
)  # fmt: skip
"""For GPUs alone: the language model of Vicuna-7B, frozen; in stage 2 low-rank matrices learn beside it."""
LORA_RANK, LORA_ALPHA = 16, 32
"""Of these matrices, beside all linear layers of the language model but the scores."""
SHAPES = {shape.name: shape for shape in (TINY, LONGER, SMALL, LARGE)}


def on_device(shape: Shape, device: str) -> Shape:
    """The shape with as many samples a step as keep the device busy."""
    if device == "cpu" or shape is LARGE:
        return shape
    return replace(shape, batch=64, row_tokens=4096, rows=4)


def write_model(shape: Shape, folder: Path) -> None:
    """Random weights, their config, and the tokenizer."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    text = {"model_type": "llama", "vocab_size": VOCABULARY, "max_position_embeddings": 8192,
            "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
            **shape.text}  # fmt: skip
    config = LlavaConfig(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **shape.vision},
        text_config=text,
        image_token_index=SPECIALS.index("<image>"),
        image_seq_length=(shape.picture_px // 16) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    # Of seven billion weights only a GPU makes a start in time, and half precision holds them.
    device, dtype = ("cuda", torch.bfloat16) if shape is LARGE else ("cpu", torch.float32)
    with torch.device(device):
        model: Any = LlavaForConditionalGeneration(config)
    model.to(dtype).save_pretrained(folder)
    write_tokenizer(folder)
    if shape is LARGE:
        # The peers' environment, which reads this file, has none of ours.
        from parts import write_parts

        write_tokenizer(write_parts(model, folder.with_name("ours")))


def write_tokenizer(folder: Path) -> None:
    """One token a word."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {token: i for i, token in enumerate(SPECIALS)}
    words |= {f"w{i}": i for i in range(len(SPECIALS), VOCABULARY)}
    rust = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rust.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=rust, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["<image>"],
    ).save_pretrained(folder)  # fmt: skip


def write_samples(shape: Shape, folder: Path, count: int, seed: int = 1) -> Path:
    """Pictures as JPEG, and a JSONL file of conversations."""
    draw = random.Random(seed)
    write_pictures(shape, folder, count, seed)
    lines: list[str] = []
    for i in range(count):
        asked, told = ((2, 10), 15) if shape.short_texts else ((4, 24), 32)
        question = words(draw, draw.randint(*asked))
        answer = words(draw, min(300, max(2, round(math.exp(draw.gauss(math.log(told), 0.8))))))
        lines.append(json.dumps({"id": str(i), "messages": [
            {"role": "user", "content": [{"type": "image", "image": f"{i}.jpg"}, {"type": "text", "text": question}]},
            {"role": "assistant", "content": answer}]}))  # fmt: skip
    path = folder / "samples.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_pictures(shape: Shape, folder: Path, count: int, seed: int = 1) -> None:
    """Smooth pictures of half to twice the tower's width, as `0.jpg`, `1.jpg`, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, pixels = random.Random(seed), np.random.default_rng(seed)
    for i in range(count):
        side = draw.randint(shape.picture_px // 2, shape.picture_px * 2)
        small = pixels.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((side, shape.picture_px)).save(folder / f"{i}.jpg", quality=90)


def words(draw: random.Random, count: int) -> str:
    """So many of the vocabulary's words."""
    return " ".join(f"w{draw.randint(len(SPECIALS), VOCABULARY - 1)}" for _ in range(count))

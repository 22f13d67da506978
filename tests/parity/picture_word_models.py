"""Tiny random models that read and write pictures as tokens, built and saved by transformers with a tokenizer of bytes and marks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.text.tokenizer import Tokenizer

CODES = 24
IMAGE = "<image>"
TEXT: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                        "num_key_value_heads": 2, "max_position_embeddings": 1024, "pad_token_id": 0, "bos_token_id": 1,
                        "eos_token_id": 2, "tie_word_embeddings": False}  # fmt: skip
VQ: dict[str, Any] = {"base_channels": 32, "num_res_blocks": 1, "embed_dim": 4}


def vocabulary(marks: tuple[str, ...], name: Callable[[int], str]) -> tuple[Tokenizer, dict[str, int]]:
    """Bytes and marks, and behind them words of codes in no simple order."""
    tokenizer = byte_tokenizer()
    tokenizer.bos_id = 1
    tokenizer.add([*marks, IMAGE, *(name((7 * i) % CODES) for i in range(CODES))])
    return tokenizer, {token: tokenizer.special_id(token) for token in tokenizer.specials()}


def shaken(model: Any) -> None:
    """Random codebooks of transformers begin so small that all pictures are one code, and LLMs so that all words are alike."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "vqmodel" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
            elif parameter.ndim > 1:
                parameter.normal_(0, 0.15)


def emu3(folder: Path) -> tuple[Any, Tokenizer]:
    from transformers import Emu3Config, Emu3ForConditionalGeneration

    from sensorium.model.picture_layouts import EMU3

    tokenizer, words = vocabulary((EMU3["begin"][0], EMU3["begin"][2], EMU3["row_end"], *EMU3["end"]), "<|visual token {:06d}|>".format)
    vq = VQ | {"codebook_size": CODES, "channel_multiplier": [1, 1, 1, 1], "attn_resolutions": [3], "hidden_size": 32}
    text = TEXT | {"vocab_size": len(tokenizer), "attention_dropout": 0.0}
    return saved(Emu3ForConditionalGeneration(Emu3Config(vq_config=vq, text_config=text, vocabulary_map=words)), tokenizer, folder)


def emu3_eyes() -> Any:
    from transformers import Emu3ImageProcessor

    return Emu3ImageProcessor(min_pixels=16**2, max_pixels=32**2)


def emu3_processor(tokenizer: Any, eyes: Any) -> Any:
    from transformers import Emu3Processor

    return Emu3Processor(eyes, tokenizer)


def chameleon(folder: Path) -> tuple[Any, Tokenizer]:
    from transformers import ChameleonConfig, ChameleonForConditionalGeneration

    from sensorium.interop.families.chameleon import LETTERS

    tokenizer, words = vocabulary(("<racm3:break>", "<eoss>", "<reserved08706>"), lambda code: f"IMGIMG{str(code).translate(LETTERS)}Z")
    vq = VQ | {"num_embeddings": CODES, "latent_channels": 8, "channel_multiplier": [1, 1, 2], "resolution": 16}
    config = ChameleonConfig(**TEXT, vocab_size=len(tokenizer), vq_config=vq, vocabulary_map=words)
    return saved(ChameleonForConditionalGeneration(config), tokenizer, folder)


def chameleon_eyes() -> Any:
    from transformers.models.chameleon.image_processing_pil_chameleon import (
        ChameleonImageProcessorPil,
    )

    return ChameleonImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})


def chameleon_processor(tokenizer: Any, eyes: Any) -> Any:
    from transformers import ChameleonProcessor

    return ChameleonProcessor(eyes, tokenizer, image_seq_length=16)


def janus(folder: Path) -> tuple[Any, Tokenizer]:
    from transformers import JanusConfig, JanusForConditionalGeneration

    tokenizer, words = vocabulary(("<begin_of_image>", "<end_of_image>", "<image_placeholder>"), "unused{}".format)
    vq = VQ | {"num_embeddings": CODES, "latent_channels": 8, "channel_multiplier": [1, 1, 2], "projection_dim": 32,
               "image_token_embed_dim": 32}  # fmt: skip
    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4,
              "projection_dim": 32, "num_image_tokens": 16, "mlp_ratio": 2}  # fmt: skip
    config = JanusConfig(vq_config=vq, vision_config=vision, text_config=TEXT | {"model_type": "llama", "vocab_size": len(tokenizer)},
                         image_token_id=words["<image_placeholder>"], tie_word_embeddings=False)  # fmt: skip
    return saved(JanusForConditionalGeneration(config), tokenizer, folder)


def janus_eyes() -> Any:
    from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

    return JanusImageProcessorPil(size={"height": 16, "width": 16}, image_mean=[0.6, 0.5, 0.4])


def janus_processor(tokenizer: Any, eyes: Any) -> Any:
    from transformers import JanusProcessor

    return JanusProcessor(eyes, tokenizer, num_image_tokens=16, use_default_system_prompt=True)


def saved(model: Any, tokenizer: Tokenizer, folder: Path) -> tuple[Any, Tokenizer]:
    shaken(model)
    model.eval().save_pretrained(folder)
    tokenizer.save(folder)
    return model, tokenizer


@dataclass(frozen=True)
class Family:
    """How the reference makes a tiny one, prepares pictures, and which names its tokenizer has for marks."""

    save: Callable[[Path], tuple[Any, Tokenizer]]
    eyes: Callable[[], Any]
    processor: Callable[[Any, Any], Any]
    marks: dict[str, str] = field(default_factory=dict[str, str])
    around: tuple[str, str] = ("", "")
    """What its chat template writes around a question."""
    sep: str = "<|im_end|>"
    image: str = IMAGE
    behind: str = ""
    """Of a picture."""
    begin: str | None = None
    """Where the tokenizer begins texts, and not the processor."""


FAMILIES: dict[str, Family] = {
    "emu3": Family(emu3, emu3_eyes, emu3_processor,
                   {"image_token": IMAGE, "boi_token": "<|image start|>", "eoi_token": "<|image end|>",
                    "image_wrapper_token": "<|image token|>", "eof_token": "<|extra_201|>"},
                   ("You are a helpful assistant. USER: ", ". ASSISTANT:")),
    "chameleon": Family(chameleon, chameleon_eyes, chameleon_processor,
                        {"image_token": IMAGE, "boi_token": "<racm3:break>", "eoi_token": "<eoss>"}, sep="<reserved08706>",
                        begin="<|im_start|>"),
    "janus": Family(janus, janus_eyes, janus_processor,
                    {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"},
                    ("<|User|>: ", "\n\n<|Assistant|>:"), image="<image_placeholder>", behind="\n", begin="<|im_start|>"),
}  # fmt: skip

"""The originals' configs as their config.json files have them, built by transformers on the meta
device, and which of their parameters belong to which part of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

CLIP_L = {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
          "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14}  # fmt: skip
LLAMA_13B = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
             "num_attention_heads": 40, "num_key_value_heads": 40}  # fmt: skip
Parts = dict[str, tuple[str, ...]]
LLAVA_PARTS: Parts = {
    "encoders.image": ("model.vision_tower.",),
    "projectors.image": ("model.multi_modal_projector.",),
    "backbone": ("model.language_model.", "lm_head."),
}
BLIP2_PARTS: Parts = {
    "encoders.image": ("vision_model.",),
    "projectors.image": ("query_tokens", "qformer.", "language_projection."),
    "backbone": ("language_model.",),
}
IDEFICS_PARTS: Parts = {
    "encoders.image": ("model.vision_model.",),
    "projectors.image": ("model.perceiver_resampler.",),
    "fusion": ("model.gated_cross_attn_layers.",),
    "backbone": ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head."),
}


def llava(image_size: int, text: dict[str, Any]) -> tuple[Any, Parts]:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(vision_config=CLIP_L | {"image_size": image_size}, text_config=text)
    return LlavaForConditionalGeneration(config), LLAVA_PARTS


def blip2(text: dict[str, Any]) -> tuple[Any, Parts]:
    """Tower and Q-Former are the defaults of the class, which are those of EVA-CLIP-g and BERT."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    return Blip2ForConditionalGeneration(Blip2Config(text_config=text)), BLIP2_PARTS


def idefics() -> tuple[Any, Parts]:
    from transformers import IdeficsConfig, IdeficsForVisionText2Text

    config = IdeficsConfig(
        vocab_size=32000, additional_vocab_size=2, cross_layer_interval=4, qk_layer_norms=True,
        alpha_type="float", use_resampler=True,
        perceiver_config={"use_resampler": True, "qk_layer_norms_perceiver": True,
                          "resampler_depth": 6, "resampler_head_dim": 96,
                          "resampler_n_heads": 16, "resampler_n_latents": 64},
        vision_config={"embed_dim": 1280, "image_size": 224, "intermediate_size": 5120,
                       "patch_size": 14, "num_hidden_layers": 32, "num_attention_heads": 16},
    )  # fmt: skip
    return IdeficsForVisionText2Text(config), IDEFICS_PARTS


# LLaMA-7B and Mistral-7B are the defaults of their classes.
ORACLES: dict[str, Callable[[], tuple[Any, Parts]]] = {
    "llava-v1": lambda: llava(224, {"model_type": "llama"}),
    "llava-1.5": lambda: llava(336, {"model_type": "llama"}),
    "llava-1.5-13b": lambda: llava(336, {"model_type": "llama", **LLAMA_13B}),
    "llava-med": lambda: llava(336, {"model_type": "mistral"}),
    "shikra": lambda: llava(224, {"model_type": "llama"}),
    "blip2-opt": lambda: blip2(
        {"model_type": "opt", "vocab_size": 50272, "hidden_size": 2560, "ffn_dim": 10240,
         "num_hidden_layers": 32, "num_attention_heads": 32, "word_embed_proj_dim": 2560}
    ),
    "minigpt4": lambda: blip2({"model_type": "llama"}),
    "idefics-9b": idefics,
}  # fmt: skip


def oracle_sizes(name: str) -> tuple[str, dict[str, int]]:
    """(class name, part of ours -> parameters of the original); every parameter is in one part."""
    with torch.device("meta"):
        model, parts = ORACLES[name]()
    sizes = dict.fromkeys(parts, 0)
    for key, parameter in model.named_parameters():
        (part,) = [p for p, prefixes in parts.items() if key.startswith(prefixes)]
        sizes[part] += parameter.numel()
    return type(model).__name__, sizes

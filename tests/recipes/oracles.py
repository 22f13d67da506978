"""The originals' configs as their config.json files have them, built by transformers on the meta
device, and which of their parameters belong to which part of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

CLIP_L = {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
          "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14}  # fmt: skip
LLAMA = {"model_type": "llama", "pad_token_id": 0}
LLAMA_2 = {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
LLAMA_13B = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
             "num_attention_heads": 40, "num_key_value_heads": 40}  # fmt: skip
MISTRAL = {"model_type": "mistral", "max_position_embeddings": 32768, "rms_norm_eps": 1e-5,
           "rope_theta": 1000000.0, "sliding_window": None}  # fmt: skip
OPT = {"model_type": "opt", "vocab_size": 50272, "hidden_size": 2560, "ffn_dim": 10240,
       "num_hidden_layers": 32, "num_attention_heads": 32, "word_embed_proj_dim": 2560}  # fmt: skip
PERCEIVER = {"use_resampler": True, "qk_layer_norms_perceiver": True, "resampler_depth": 6,
             "resampler_head_dim": 96, "resampler_n_heads": 16, "resampler_n_latents": 64}  # fmt: skip
CLIP_H = {"embed_dim": 1280, "image_size": 224, "intermediate_size": 5120, "patch_size": 14,
          "num_hidden_layers": 32, "num_attention_heads": 16, "hidden_act": "gelu"}  # fmt: skip

Parts = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Oracle:
    """A class of transformers, the original's config, and the key prefixes of each part."""

    family: str
    class_name: str
    config: Callable[[], Any]
    parts: Parts

    def sizes(self) -> dict[str, int]:
        """Part of ours -> parameters of the original; every parameter is in exactly one."""
        import transformers

        with torch.device("meta"):
            model = getattr(transformers, self.class_name)(self.config())
        sizes = dict.fromkeys(self.parts, 0)
        for key, parameter in model.named_parameters():
            (part,) = [p for p, prefixes in self.parts.items() if key.startswith(prefixes)]
            sizes[part] += parameter.numel()
        return sizes


def llava(image_size: int, **text: Any) -> Oracle:
    def config() -> Any:
        from transformers import LlavaConfig

        return LlavaConfig(vision_config=CLIP_L | {"image_size": image_size}, text_config=text)

    return Oracle("llava", "LlavaForConditionalGeneration", config, {
        "encoders.image": ("model.vision_tower.",),
        "projectors.image": ("model.multi_modal_projector.",),
        "backbone": ("model.language_model.", "lm_head."),
    })  # fmt: skip


def blip2(**text: Any) -> Oracle:
    """Tower and Q-Former are the defaults of the class, which are those of EVA-CLIP-g and BERT."""

    def config() -> Any:
        from transformers import Blip2Config

        return Blip2Config(text_config=text)

    return Oracle("blip-2", "Blip2ForConditionalGeneration", config, {
        "encoders.image": ("vision_model.",),
        "projectors.image": ("query_tokens", "qformer.", "language_projection."),
        "backbone": ("language_model.",),
    })  # fmt: skip


def instructblip(**text: Any) -> Oracle:
    """BLIP-2's, and BERT's vocabulary with a token for the begin of a text."""

    def config() -> Any:
        from transformers import InstructBlipConfig

        return InstructBlipConfig(text_config=text, qformer_config={"vocab_size": 30523})

    return Oracle("instructblip", "InstructBlipForConditionalGeneration", config, {
        "encoders.image": ("vision_model.",),
        "projectors.image": ("query_tokens", "qformer.", "language_projection."),
        "backbone": ("language_model.",),
    })  # fmt: skip


def idefics() -> Oracle:
    def config() -> Any:
        from transformers import IdeficsConfig

        return IdeficsConfig(
            vocab_size=32000, additional_vocab_size=2, cross_layer_interval=4, qk_layer_norms=True,
            alpha_type="float", use_resampler=True, perceiver_config=PERCEIVER, vision_config=CLIP_H,
        )  # fmt: skip

    return Oracle("idefics", "IdeficsForVisionText2Text", config, {
        "encoders.image": ("model.vision_model.",),
        "projectors.image": ("model.perceiver_resampler.",),
        "fusion": ("model.gated_cross_attn_layers.",),
        "backbone": ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head."),
    })  # fmt: skip


# What is left out is the class's default: the sizes of LLaMA-7B and of Mistral-7B.
ORACLES: dict[str, Oracle] = {
    "llava-v1": llava(224, **LLAMA),
    "llava-1.5": llava(336, **LLAMA, **LLAMA_2),
    "llava-1.5-13b": llava(336, **LLAMA, **LLAMA_2, **LLAMA_13B),
    "llava-1.5-lora": llava(336, **LLAMA, **LLAMA_2),
    "llava-med": llava(336, **MISTRAL),
    "shikra": llava(224, **LLAMA),
    "blip2-opt": blip2(**OPT),
    "instructblip": instructblip(**LLAMA),
    "minigpt4": blip2(**LLAMA),
    "idefics-9b": idefics(),
}

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
# Of Qwen2's own config.json files; its defaults are the 7B's heads, but not its width.
QWEN2 = {"model_type": "qwen2", "max_position_embeddings": 32768, "rope_theta": 1000000.0,
         "bos_token_id": 151643, "eos_token_id": 151645}  # fmt: skip
QWEN2_7B = {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
            "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}  # fmt: skip
QWEN2_HALF_B = {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
                "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2}  # fmt: skip
# As llava-hf/llava-onevision-qwen2-*-ov-hf have it: 26 of 27 blocks, no head.
SIGLIP = {"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
          "num_hidden_layers": 26, "num_attention_heads": 16, "patch_size": 14, "image_size": 384,
          "vision_use_head": False}  # fmt: skip
FLAN_T5_XL = {"model_type": "t5", "d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32,
              "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
              "decoder_start_token_id": 0}  # fmt: skip
PERCEIVER = {"use_resampler": True, "qk_layer_norms_perceiver": True, "resampler_depth": 6,
             "resampler_head_dim": 96, "resampler_n_heads": 16, "resampler_n_latents": 64}  # fmt: skip
CLIP_H = {"embed_dim": 1280, "image_size": 224, "intermediate_size": 5120, "patch_size": 14,
          "num_hidden_layers": 32, "num_attention_heads": 16, "hidden_act": "gelu"}  # fmt: skip

# One row or column of up to six tiles of 224 pixels, or 2x2 and 2x3.
HD_PINPOINTS = [[224 * rows, 224 * cols] for rows, cols in [
    (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (2, 2),
    (2, 3), (3, 2)]]  # fmt: skip

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


TILED = {
    "encoders.image": ("model.vision_tower.",),
    "projectors.image": ("model.multi_modal_projector.",),
    "newlines.image": ("model.image_newline",),
    "backbone": ("model.language_model.", "lm_head."),
}


def llava_next(image_size: int, pinpoints: list[list[int]] | None = None, **text: Any) -> Oracle:
    """The default pinpoints are those of the released models."""

    def config() -> Any:
        from transformers import LlavaNextConfig

        vision = CLIP_L | {"image_size": image_size}
        more = {"image_grid_pinpoints": pinpoints} if pinpoints else {}
        return LlavaNextConfig(vision_config=vision, text_config=text, **more)

    return Oracle("llava_next", "LlavaNextForConditionalGeneration", config, TILED)


def llava_onevision(*, tie: bool, **text: Any) -> Oracle:
    def config() -> Any:
        from transformers import LlavaOnevisionConfig

        tied = {"tie_word_embeddings": tie}
        return LlavaOnevisionConfig(vision_config=SIGLIP, text_config=text | tied, **tied)

    return Oracle("llava_onevision", "LlavaOnevisionForConditionalGeneration", config, TILED)


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


MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0,
                             "mrope_section": [16, 24, 24]}}  # fmt: skip
# Of the 2B's config.json; all other sizes of Qwen2-VL are Qwen2's.
QWEN2_2B = {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960,
            "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2}  # fmt: skip
WITH_MERGER = {
    "encoders.image": ("model.visual.patch_embed.", "model.visual.blocks."),
    "projectors.image": ("model.visual.merger.",),
    "backbone": ("model.language_model.", "lm_head."),
}


def qwen2_vl(*, tie: bool, **text: Any) -> Oracle:
    """The tower is the class's default, which is the published one."""

    def config() -> Any:
        from transformers import Qwen2VLConfig

        vision = {"hidden_size": text["hidden_size"]}
        words = {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, **MROPE, **text}
        return Qwen2VLConfig(vision_config=vision, text_config=words, tie_word_embeddings=tie)

    return Oracle("qwen2_vl", "Qwen2VLForConditionalGeneration", config, WITH_MERGER)


QWEN25_3B = {"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008,
             "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2}  # fmt: skip


def qwen25_vl(*, tie: bool, **text: Any) -> Oracle:
    """The tower is the class's default but for its width, which every config.json gives."""

    def config() -> Any:
        from transformers import Qwen2_5_VLConfig

        vision = {"hidden_size": 1280, "out_hidden_size": text["hidden_size"]}
        words = {"max_position_embeddings": 128000, "rms_norm_eps": 1e-6, **MROPE, **text}
        return Qwen2_5_VLConfig(vision_config=vision, text_config=words, tie_word_embeddings=tie)

    return Oracle("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", config, WITH_MERGER)
DUAL = {
    "encoders.image": ("vision_model.",),
    "backbone": ("text_model.", "text_projection."),
    "fusion": ("logit_scale", "logit_bias"),
}


def clip(*, width: int = 512, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None) -> Oracle:
    """The default is ViT-B/32."""

    def config() -> Any:
        from transformers import CLIPConfig

        return CLIPConfig(projection_dim=width, text_config=text, vision_config=vision)

    parts = {**DUAL, "projectors.image": ("visual_projection.",)}
    return Oracle("clip", "CLIPModel", config, parts)


def siglip(text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None) -> Oracle:
    """The default is ViT-B/16."""

    def config() -> Any:
        from transformers import SiglipConfig

        return SiglipConfig(text_config=text, vision_config=vision)

    return Oracle("siglip", "SiglipModel", config, DUAL)


BERT = {"num_attention_heads": 12}


def blip(class_name: str, image_size: int) -> Oracle:
    """The class's default has eight heads, the released files BERT's twelve."""

    def config() -> Any:
        from transformers import BlipConfig

        made = BlipConfig(text_config=BERT, vision_config={"image_size": image_size})
        made.architectures = [class_name]
        return made

    return Oracle("blip", class_name, config, {
        "encoders.image": ("vision_model.",),
        "backbone": ("text_encoder.", "text_decoder.", "text_proj.", "itm_head."),
        **({"fusion": ("vision_proj.",)} if class_name == "BlipForImageTextRetrieval" else {}),
    })  # fmt: skip


SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
          "num_attention_heads": 16}  # fmt: skip


def emu3() -> Oracle:
    def config() -> Any:
        from transformers import Emu3Config

        # Names of words as the vocabulary has them, behind all others.
        words = {f"<|visual token {code:06d}|>": 151854 + code for code in range(32768)}
        return Emu3Config(vocabulary_map=words)

    return Oracle("emu3", "Emu3ForConditionalGeneration", config, {
        "backbone": ("model.text_model.", "lm_head."),
        "picture_tokenizer": ("model.vqmodel.",),
    })  # fmt: skip


def chameleon() -> Oracle:
    """Without the decoder, which the class leaves out."""

    def config() -> Any:
        from transformers import ChameleonConfig

        letters = str.maketrans("0123456789", "ABCDEFGHIJ")
        words = {f"IMGIMG{str(code).translate(letters)}Z": 4 + code for code in range(8192)}
        return ChameleonConfig(vocabulary_map=words, bos_token_id=0, pad_token_id=1, eos_token_id=2)

    return Oracle("chameleon", "ChameleonForConditionalGeneration", config, {
        "picture_tokenizer": ("model.vqmodel.",),
        "backbone": ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head."),
    })  # fmt: skip


def janus(**text: int) -> Oracle:
    def config() -> Any:
        from transformers import JanusConfig

        width = text["hidden_size"]
        return JanusConfig(
            text_config={"model_type": "llama", "vocab_size": 102400, "max_position_embeddings": 16384, **text},
            vision_config={"projection_dim": width}, vq_config={"projection_dim": width, "image_token_embed_dim": width},
            tie_word_embeddings=False,
        )  # fmt: skip

    return Oracle("janus", "JanusForConditionalGeneration", config, {
        "encoders.image": ("model.vision_model.",),
        "projectors.image": ("model.aligner.",),
        "picture_tokenizer": ("model.vqmodel.",),
        "code_tables": ("model.generation_",),
        "backbone": ("model.language_model.", "lm_head."),
    })  # fmt: skip


def kosmos2() -> Oracle:
    """All sizes are the defaults of the class, which are those of the released model."""

    def config() -> Any:
        from transformers import Kosmos2Config

        return Kosmos2Config()

    return Oracle("kosmos-2", "Kosmos2ForConditionalGeneration", config, {
        "encoders.image": ("vision_model.",),
        "projectors.image": ("image_to_text_projection.",),
        "backbone": ("text_model.",),
    })  # fmt: skip


# What is left out is the class's default: the sizes of LLaMA-7B and of Mistral-7B.
ORACLES: dict[str, Oracle] = {
    "clip": clip(),
    "clip-l": clip(
        width=768, vision=CLIP_L | {"image_size": 224, "projection_dim": 768},
        text={"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768},
    ),
    "clip-l-336": clip(
        width=768, vision=CLIP_L | {"image_size": 336, "projection_dim": 768},
        text={"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768},
    ),
    "siglip": siglip(),
    "siglip-so400m": siglip(SO400M, SO400M | {"image_size": 384, "patch_size": 14}),
    "llava-v1": llava(224, **LLAMA),
    "llava-1.5": llava(336, **LLAMA, **LLAMA_2),
    "llava-1.5-13b": llava(336, **LLAMA, **LLAMA_2, **LLAMA_13B),
    "llava-1.5-lora": llava(336, **LLAMA, **LLAMA_2),
    "llava-1.5-hd": llava_next(224, HD_PINPOINTS, **LLAMA, **LLAMA_2, **LLAMA_13B),
    "llava-next": llava_next(336, **LLAMA, **LLAMA_2),
    "llava-next-mistral": llava_next(336, **MISTRAL),
    "llava-onevision": llava_onevision(tie=False, **QWEN2, **QWEN2_7B),
    "llava-onevision-0.5b": llava_onevision(tie=True, **QWEN2, **QWEN2_HALF_B),
    "llava-med": llava(336, **MISTRAL),
    "shikra": llava(224, **LLAMA),
    "chatspot": llava(224, **LLAMA),
    "blip-caption": blip("BlipForConditionalGeneration", 384),
    "blip-vqa": blip("BlipForQuestionAnswering", 480),
    "blip-retrieval": blip("BlipForImageTextRetrieval", 384),
    "blip2-opt": blip2(**OPT),
    "blip2-t5": blip2(**FLAN_T5_XL),
    "dlp": blip2(**OPT),
    "instructblip": instructblip(**LLAMA),
    "instructblip-t5": instructblip(**FLAN_T5_XL),
    "minigpt4": blip2(**LLAMA),
    "idefics-9b": idefics(),
    "qwen2-vl": qwen2_vl(tie=False, **QWEN2_7B),
    "qwen2-vl-2b": qwen2_vl(tie=True, **QWEN2_2B),
    "qwen2.5-vl": qwen25_vl(tie=False, **QWEN2_7B),
    "qwen2.5-vl-3b": qwen25_vl(tie=True, **QWEN25_3B),
    "kosmos-2": kosmos2(),
    "emu3": emu3(),
    "chameleon": chameleon(),
    "janus": janus(hidden_size=2048, intermediate_size=5632, num_hidden_layers=24, num_attention_heads=16),
    "janus-pro": janus(hidden_size=4096, intermediate_size=11008, num_hidden_layers=30, num_attention_heads=32),
}

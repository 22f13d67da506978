"""Tiny random checkpoints, built and saved by transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

IMAGE_ID = 99
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
          "num_attention_heads": 4, "image_size": 28, "patch_size": 14}  # fmt: skip

NEXT_IMAGE_ID = 299
NEXT_PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
ONEVISION_PINPOINTS = [[28 * rows, 28 * cols] for rows in range(1, 7) for cols in range(1, 7)]


def llava(folder: Path, tie: bool = False, vocab: int = 100) -> Any:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    text = {"model_type": "llama", "vocab_size": vocab, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "tie_word_embeddings": tie}  # fmt: skip
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **VISION},
        text_config=text,
        image_token_index=vocab - 1,
        tie_word_embeddings=tie,
    )
    return save(LlavaForConditionalGeneration(config), folder)


def llava_next(folder: Path, patch_px: int = 7, pinpoints: list[list[int]] | None = None) -> Any:
    """Tiles of 28 pixels; room for the byte tokenizer, and `NEXT_IMAGE_ID` beyond it."""
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

    text = {"model_type": "llama", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    config = LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **VISION, "patch_size": patch_px},
        text_config=text,
        image_token_index=NEXT_IMAGE_ID,
        image_grid_pinpoints=pinpoints or NEXT_PINPOINTS,
    )
    return save(LlavaNextForConditionalGeneration(config), folder)


def llava_onevision(folder: Path, *, tie: bool = False, max_tiles: int = 9) -> Any:
    """SigLIP without its pooling head, Qwen2; tied or not whatever the text's own config says."""
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    config = LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **VISION, "patch_size": 7,
                       "vision_use_head": False},
        text_config={"model_type": "qwen2", "vocab_size": 300, "hidden_size": 32,
                     "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                     "num_key_value_heads": 2, "tie_word_embeddings": not tie},
        image_token_index=NEXT_IMAGE_ID,
        video_token_index=NEXT_IMAGE_ID - 1,
        image_grid_pinpoints=ONEVISION_PINPOINTS,
        tie_word_embeddings=tie,
        vision_aspect_ratio=f"anyres_max_{max_tiles}",
    )  # fmt: skip
    return save(LlavaOnevisionForConditionalGeneration(config), folder)


def blip2(folder: Path, vocab: int = 100) -> Any:
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    config = Blip2Config(
        vision_config=VISION,
        qformer_config={"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 4,
                        "num_attention_heads": 4, "intermediate_size": 48,
                        "encoder_hidden_size": 32},
        text_config={"model_type": "opt", "vocab_size": vocab, "hidden_size": 32, "ffn_dim": 48,
                     "num_hidden_layers": 2, "num_attention_heads": 4,
                     "max_position_embeddings": 64, "word_embed_proj_dim": 32},
        num_query_tokens=4,
        image_token_index=vocab - 1,
    )  # fmt: skip
    return save(Blip2ForConditionalGeneration(config), folder)


T5 = {"model_type": "t5", "vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2,
      "num_decoder_layers": 2, "num_heads": 4, "dropout_rate": 0.0, "decoder_start_token_id": 0,
      "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}  # fmt: skip


def t5(folder: Path, *, tie: bool) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    return save(T5ForConditionalGeneration(T5Config(**(T5 | {"tie_word_embeddings": tie}))), folder)


def blip2_t5(folder: Path, *, reads: bool, vocab: int = 100) -> Any:
    """BLIP-2 or, with a Q-Former that reads, InstructBLIP, in front of a T5."""
    import transformers

    former = {"vocab_size": vocab, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
              "intermediate_size": 48, "encoder_hidden_size": 32, "max_position_embeddings": 16}  # fmt: skip
    name = "InstructBlip" if reads else "Blip2"
    config = getattr(transformers, f"{name}Config")(
        vision_config=VISION, qformer_config=former, text_config=T5 | {"vocab_size": vocab},
        num_query_tokens=4, image_token_index=vocab - 1,
    )  # fmt: skip
    return save(getattr(transformers, f"{name}ForConditionalGeneration")(config), folder)


def instructblip(folder: Path, vocab: int = 100, reader: int = 50) -> Any:
    """A Q-Former of `reader` words of its own before a Llama of `vocab`."""
    from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

    config = InstructBlipConfig(
        vision_config=VISION,
        qformer_config={"vocab_size": reader, "hidden_size": 32, "num_hidden_layers": 4,
                        "num_attention_heads": 4, "intermediate_size": 48,
                        "encoder_hidden_size": 32, "max_position_embeddings": 16},
        text_config={"model_type": "llama", "vocab_size": vocab, "hidden_size": 32,
                     "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                     "num_key_value_heads": 2},
        num_query_tokens=4,
        image_token_index=vocab - 1,
    )  # fmt: skip
    return save(InstructBlipForConditionalGeneration(config), folder)


def idefics(folder: Path, *, alpha: str, norm_heads: bool, extra: int, vocab: int = 100) -> Any:
    from transformers import IdeficsConfig, IdeficsForVisionText2Text

    config = IdeficsConfig(
        vocab_size=vocab, additional_vocab_size=extra, hidden_size=32, intermediate_size=48,
        num_hidden_layers=4, num_attention_heads=4, cross_layer_interval=2,
        qk_layer_norms=norm_heads, use_resampler=True, alpha_type=alpha, alpha_initializer="ones",
        vision_config={"embed_dim": 32, "image_size": 28, "patch_size": 14,
                       "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
        perceiver_config={"use_resampler": True, "resampler_n_latents": 4, "resampler_depth": 2,
                          "resampler_n_heads": 4, "resampler_head_dim": 8,
                          "qk_layer_norms_perceiver": norm_heads},
    )  # fmt: skip
    return save(IdeficsForVisionText2Text(config), folder)


def kosmos2(folder: Path, vocab: int = 100) -> Any:
    from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

    config = Kosmos2Config(
        vision_config=VISION,
        text_config={"vocab_size": vocab, "embed_dim": 32, "ffn_dim": 48, "layers": 2,
                     "attention_heads": 4, "max_position_embeddings": 64},
        latent_query_num=4,
    )  # fmt: skip
    return save(Kosmos2ForConditionalGeneration(config), folder)


def mpt(folder: Path, arch: dict[str, Any]) -> Any:
    from transformers import AutoConfig, MptForCausalLM

    return save(MptForCausalLM(AutoConfig.for_model(**arch)), folder)


def save(model: Any, folder: Path) -> Any:
    # Small random weights give nearly equal logits; wider ones make greedy text telling.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
            elif "bias" in name or "class_embedding" in name:
                parameter.normal_(0, 0.1)
    model.eval().save_pretrained(folder)
    return model


TEXT = {"vocab_size": 300, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 20, "bos_token_id": 298, "eos_token_id": 299,
        "pad_token_id": 1}  # fmt: skip


def clip(folder: Path) -> Any:
    """Towers of different widths, and a space of a third."""
    from transformers import CLIPConfig, CLIPModel

    text = {**TEXT, "hidden_size": 24, "intermediate_size": 40}
    model = CLIPModel(CLIPConfig(vision_config=VISION, text_config=text, projection_dim=16))
    return save(model, folder)


def siglip(folder: Path) -> Any:
    """The text's head leads into the width of the picture's tower."""
    from transformers import SiglipConfig, SiglipModel

    text = {**TEXT, "hidden_size": 24, "intermediate_size": 40, "projection_size": 32}
    model = SiglipModel(SiglipConfig(vision_config=VISION, text_config=text))
    with torch.no_grad():
        # Without training all scores are alike.
        model.logit_scale.fill_(2.3)
        model.logit_bias.fill_(-1.5)
    return save(model, folder)


def blip(folder: Path, class_name: str = "BlipForConditionalGeneration") -> Any:
    """Room for the byte tokenizer; [DEC] and [ENC] would be 259 and 260."""
    import transformers

    # What answers questions attends to questions by layers that are as wide as pictures.
    width = 32 if class_name == "BlipForQuestionAnswering" else 24
    text = {"vocab_size": 261, "hidden_size": width, "encoder_hidden_size": 32, "intermediate_size": 40,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
            "bos_token_id": 259, "sep_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}  # fmt: skip
    config = transformers.BlipConfig(text_config=text, vision_config=VISION, image_text_hidden_size=16)
    return save(getattr(transformers, class_name)(config), folder)

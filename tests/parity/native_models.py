"""Tiny random checkpoints of systems that take pictures at their own size, by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hf_models import save

IMAGE_ID = 299
TEXT: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048, "bos_token_id": None, "eos_token_id": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
}  # fmt: skip


def qwen2_vl(folder: Path, *, tie: bool = False) -> Any:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    config = Qwen2VLConfig(
        vision_config={"depth": 3, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2},
        text_config=TEXT,
        image_token_id=IMAGE_ID,
        video_token_id=IMAGE_ID - 1,
        tie_word_embeddings=tie,
    )
    return save(Qwen2VLForConditionalGeneration(config), folder)


def qwen25_vl(folder: Path, *, tie: bool = False) -> Any:
    """Windows of 2 x 2 tokens in two of three layers."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = Qwen2_5_VLConfig(
        vision_config={"depth": 3, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32,
                       "num_heads": 4, "window_size": 56, "fullatt_block_indexes": [1]},
        text_config=TEXT,
        image_token_id=IMAGE_ID,
        video_token_id=IMAGE_ID - 1,
        tie_word_embeddings=tie,
    )  # fmt: skip
    return save(Qwen2_5_VLForConditionalGeneration(config), folder)


def rice_names(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """MLCD's tensors under the names of RICE-ViT: query, key and value in one, as OneVision-1.5 keeps them; without the pooled token's norm."""
    ours = {
        "class_embedding": theirs["embeddings.class_embedding"],
        "class_pos_emb": theirs["class_pos_emb"],
        "patch_embed.weight": theirs["embeddings.patch_embedding.weight"],
        "pre_layernorm.weight": theirs["pre_layrnorm.weight"],
        "pre_layernorm.bias": theirs["pre_layrnorm.bias"],
    }
    for i in range(3):
        old, new = f"encoder.layers.{i}", f"blocks.{i}"
        for end in ("weight", "bias"):
            parts = [theirs[f"{old}.self_attn.{n}_proj.{end}"] for n in "qkv"]
            ours[f"{new}.attn.qkv.{end}"] = torch.cat(parts)
            ours[f"{new}.attn.proj.{end}"] = theirs[f"{old}.self_attn.out_proj.{end}"]
            for n in (1, 2):
                ours[f"{new}.norm{n}.{end}"] = theirs[f"{old}.layer_norm{n}.{end}"]
                ours[f"{new}.mlp.fc{n}.{end}"] = theirs[f"{old}.mlp.fc{n}.{end}"]
    return ours

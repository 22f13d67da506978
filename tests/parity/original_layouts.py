"""Transformers' tiny models, written in the layouts of the original repositories.

The names are spelt out here a second time, from the repositories, so that a slip in a key map of ours
cannot hide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensorium.text.byte_tokenizer import byte_tokenizer

VISION_16: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
             "num_attention_heads": 16, "image_size": 28, "patch_size": 14}  # fmt: skip
QFORMER_12: dict[str, Any] = {"vocab_size": 50, "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 12,
              "intermediate_size": 40, "encoder_hidden_size": 32, "max_position_embeddings": 16}  # fmt: skip
TEXT: dict[str, Any] = {"model_type": "llama", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "tie_word_embeddings": False}  # fmt: skip
IMAGE = 299


def renamed(tensors: dict[str, Tensor], pairs: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """Every name through all pairs of pattern and replacement, in order."""
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        for pattern, new in pairs:
            name = re.sub(pattern, new, name)
        found[name] = value.detach().clone()
    return found


def spread(model: Any) -> Any:
    """Weights wide enough to make greedy text telling."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
            elif "bias" in name or "class_embedding" in name:
                parameter.normal_(0, 0.1)
            elif "newline" in name:
                parameter.normal_(0, 1)
    return model.eval()


def write_folder(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], shards: int = 1) -> None:
    """config.json, tokenizer and `pytorch_model.bin`, in shards if asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    byte_tokenizer().save(folder)
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    names = list(tensors)
    where = {n: f"pytorch_model-{i % shards + 1:05}-of-{shards:05}.bin" for i, n in enumerate(names)}
    for file in set(where.values()):
        torch.save({n: tensors[n] for n in names if where[n] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))


def save_llm(model: Any, folder: Path) -> Path:
    """A language model in transformers' layout, with a tokenizer."""
    model.save_pretrained(folder)
    byte_tokenizer().save(folder)
    return folder


# github.com/haotian-liu/LLaVA: what LlavaLlamaForCausalLM.state_dict() holds.
LLAVA_NAMES = (
    (r"^model\.vision_tower\.(?:vision_model\.)?", "model.vision_tower.vision_tower.vision_model."),
    (r"^model\.multi_modal_projector\.linear_1\.", "model.mm_projector.0."),
    (r"^model\.multi_modal_projector\.linear_2\.", "model.mm_projector.2."),
    (r"^model\.language_model\.", "model."),
)


def llava_repository(model: Any) -> dict[str, Tensor]:
    tensors = renamed(model.state_dict(), LLAVA_NAMES)
    # Buffers that checkpoints of that time held.
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    tensors["model.vision_tower.vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    return tensors


# github.com/salesforce/LAVIS: models/eva_vit.py, models/blip2_models/Qformer.py.
LAVIS_NAMES = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual_encoder.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$", "visual_encoder.pos_embed"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual_encoder.patch_embed.proj."),
    (r"^vision_model\.encoder\.layers\.", "visual_encoder.blocks."),
    (r"^vision_model\.post_layernorm\.", "ln_vision."),
    (r"(visual_encoder\.blocks\.\d+)\.layer_norm", r"\1.norm"),
    (r"\.self_attn\.qkv\.", ".attn.qkv."),
    (r"\.self_attn\.projection\.", ".attn.proj."),
    (r"^qformer\.layernorm\.", "Qformer.bert.embeddings.LayerNorm."),
    (r"^qformer\.embeddings\.layernorm\.", "Qformer.bert.embeddings.LayerNorm."),
    (r"^qformer\.", "Qformer.bert."),
    (r"attention\.attention\.", "attention.self."),
    (r"^language_projection\.", "opt_proj."),
)


def lavis(model: Any, last: str) -> dict[str, Tensor]:
    """A whole LAVIS state, without the language model, which is frozen and not saved."""
    plain = {k.removeprefix("model."): v for k, v in model.state_dict().items()}
    plain = {k: v for k, v in plain.items() if not k.startswith(("language_model.", "lm_head."))}
    tensors = {k.replace("opt_proj.", f"{last}."): v for k, v in renamed(plain, LAVIS_NAMES).items()}
    for name in [n for n in tensors if n.endswith("attn.qkv.bias")]:
        q, k, v = tensors.pop(name).chunk(3)
        assert not k.any()
        tensors[name.replace("qkv.bias", "q_bias")] = q.clone()
        tensors[name.replace("qkv.bias", "v_bias")] = v.clone()
    return tensors


def without_key_bias(model: Any) -> Any:
    """EVA has none; transformers' class would hold one."""
    with torch.no_grad():
        for layer in model.model.vision_model.encoder.layers if hasattr(model, "model") else model.vision_model.encoder.layers:
            bias = layer.self_attn.qkv.bias
            bias[len(bias) // 3 : 2 * len(bias) // 3] = 0
    return model

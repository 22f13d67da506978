"""GGUF -> the Hugging Face layout: weights, config and tokenizer of Llama-family models.

The key map is data; quantised blocks are expanded to fp32 by the `gguf` package. Source
of the names and of the rotary interleaving: ggml-org/llama.cpp `convert_hf_to_gguf.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as RustTokenizer
from torch import Tensor

from sensorium.core.atomic import atomic_folder, write_json
from sensorium.core.errors import WeightsError
from sensorium.text.tokenizer import Tokenizer

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
CONTROL_TOKEN = 3  # llama.cpp's token type for control tokens
GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def convert_gguf(file: Path, folder: Path) -> None:
    """Write `folder` in the Hugging Face layout, atomically.

    Raises:
        WeightsError: the file is damaged or not of a Llama-like architecture.
    """
    from gguf import GGUFReader, dequantize

    try:
        reader = GGUFReader(file)
    except (ValueError, OSError, IndexError) as error:
        raise WeightsError(f"not readable as GGUF: {error}", where=str(file)) from None
    fields = {name: field.contents() for name, field in reader.fields.items()}
    arch = fields.get("general.architecture")
    if arch != "llama":
        raise WeightsError(f"GGUF architecture {arch!r}", expected="'llama'", where=str(file))
    config = _config(fields)
    tensors: dict[str, Tensor] = {}
    for entry in reader.tensors:
        values = torch.from_numpy(np.array(dequantize(entry.data, entry.tensor_type)))
        tensors[to_hf_name(entry.name)] = _unpermute(entry.name, values.float(), config)
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    with atomic_folder(folder) as target:
        save_file({k: v.contiguous() for k, v in tensors.items()}, target / "model.safetensors",
                  metadata={"format": "pt"})  # fmt: skip
        write_json(target / "config.json", config)
        _tokenizer(fields).save(target)


def to_hf_name(name: str) -> str:
    """The transformers name of a GGUF tensor.

    Raises:
        WeightsError: the name is not in the map.
    """
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in LAYER_NAMES:
        return f"model.layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.{parts[3]}"
    raise WeightsError(f"unknown GGUF tensor {name!r}")


def _unpermute(name: str, values: Tensor, config: dict[str, Any]) -> Tensor:
    """Undo the interleaving of rotary halves that llama.cpp applies to queries and keys."""
    heads = {
        "attn_q": config["num_attention_heads"],
        "attn_k": config["num_key_value_heads"],
    }
    count = heads.get(name.split(".")[2]) if name.startswith("blk.") else None
    if count is None:
        return values
    half = values.shape[0] // count // 2
    return values.view(count, half, 2, -1).transpose(1, 2).reshape(values.shape)


def _config(fields: dict[str, Any]) -> dict[str, Any]:
    def get(key: str) -> Any:
        return fields[f"llama.{key}"]

    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": get("vocab_size"),
        "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": get("attention.head_count"),
        "num_key_value_heads": get("attention.head_count_kv"),
        "max_position_embeddings": get("context_length"),
        # The file stores single precision; six digits recover the value that was meant.
        "rms_norm_eps": float(f"{get('attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": float(get("rope.freq_base")),
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }


def _tokenizer(fields: dict[str, Any]) -> Tokenizer:
    """The byte-level BPE that the file describes.

    Raises:
        WeightsError: another kind of tokenizer.
    """
    kind, split = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or split not in ("smollm", "gpt-2"):
        raise WeightsError(
            f"GGUF tokenizer {kind!r} with splitter {split!r}",
            expected="'gpt2' with 'smollm' or 'gpt-2'",
        )
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(line.split(" ", 1)) for line in fields["tokenizer.ggml.merges"]]
    vocab = {token: i for i, token in enumerate(tokens)}
    rust = RustTokenizer(models.BPE(vocab=vocab, merges=merges))  # pyright: ignore[reportArgumentType]
    pieces: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if split == "smollm" else []
    pieces.append(pre_tokenizers.Split(Regex(GPT2_SPLIT), "isolated"))
    pieces.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    rust.pre_tokenizer = pre_tokenizers.Sequence(pieces)
    rust.decoder = decoders.ByteLevel()
    types: list[int] = fields["tokenizer.ggml.token_type"]
    control = [t for t, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
    rust.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    # The instruct models end a turn with <|im_end|>, which the file names as eos.
    return Tokenizer(
        rust,
        bos_id=fields["tokenizer.ggml.bos_token_id"],
        eos_id=fields["tokenizer.ggml.eos_token_id"],
        pad_id=fields["tokenizer.ggml.padding_token_id"],
    )

"""GGUF -> the Hugging Face layout: weights, config and tokenizer of Llama-family models.

The key map is data; quantised blocks are expanded to fp32 by the `gguf` package. Source
of the names and of the rotary interleaving: ggml-org/llama.cpp `convert_hf_to_gguf.py`; of
what may be left out: ggml-org/ggml `docs/gguf.md`, and llama.cpp's loader for its defaults.
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
from sensorium.core.progress import progress
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
ROPE_BASE = 10_000.0  # llama.cpp's, where a file names none
GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def convert_gguf(file: Path, folder: Path) -> None:
    """Write `folder` in the Hugging Face layout, atomically.

    Raises:
        WeightsError: the file is damaged, not of a Llama-like architecture, or lacks a
            field that has no default.
    """
    from gguf import GGUFReader, dequantize

    try:
        reader = GGUFReader(file)
    except (ValueError, OSError, IndexError) as error:
        raise WeightsError(f"not readable as GGUF: {error}", where=str(file)) from None
    fields = _Fields({name: field.contents() for name, field in reader.fields.items()}, file)
    arch = fields.get("general.architecture")
    if arch != "llama":
        raise WeightsError(f"GGUF architecture {arch!r}", expected="'llama'", where=str(file))
    config, tokenizer = _config(fields), _tokenizer(fields)
    tensors: dict[str, Tensor] = {}
    with progress(f"unpacking {file.name}", len(reader.tensors)) as meter:
        for done, entry in enumerate(reader.tensors, start=1):
            values = torch.from_numpy(np.array(dequantize(entry.data, entry.tensor_type)))
            tensors[to_hf_name(entry.name)] = _unpermute(entry.name, values.float(), config)
            meter.update(done)
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    with atomic_folder(folder) as target:
        save_file({k: v.contiguous() for k, v in tensors.items()}, target / "model.safetensors",
                  metadata={"format": "pt"})  # fmt: skip
        write_json(target / "config.json", config)
        tokenizer.save(target)


class _Fields:
    """The metadata of a file."""

    def __init__(self, values: dict[str, Any], file: Path) -> None:
        self.values = values
        self.file = file

    def get(self, key: str, default: Any = None) -> Any:
        """A field that a file may leave out."""
        return self.values.get(key, default)

    def need(self, key: str) -> Any:
        """A field that has no default.

        Raises:
            WeightsError: the file lacks it.
        """
        if key not in self.values:
            raise WeightsError(
                f"the GGUF metadata lacks {key!r}",
                expected="a value: the format has no default for it",
                where=str(self.file),
                fix="convert the model again, with llama.cpp's convert_hf_to_gguf.py",
            )
        return self.values[key]


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


def _config(fields: _Fields) -> dict[str, Any]:
    def need(key: str) -> Any:
        return fields.need(f"llama.{key}")

    heads = need("attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": fields.get("llama.vocab_size") or len(fields.need("tokenizer.ggml.tokens")),
        "hidden_size": need("embedding_length"),
        "intermediate_size": need("feed_forward_length"),
        "num_hidden_layers": need("block_count"),
        "num_attention_heads": heads,
        # Left out where no heads are grouped.
        "num_key_value_heads": fields.get("llama.attention.head_count_kv", heads),
        "max_position_embeddings": need("context_length"),
        # The file stores single precision; six digits recover the value that was meant.
        "rms_norm_eps": float(f"{need('attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": float(fields.get("llama.rope.freq_base", ROPE_BASE)),
        **_special_ids(fields),
    }


def _special_ids(fields: _Fields) -> dict[str, int | None]:
    """Ids under transformers' names; a file may have no beginning and no padding."""
    return {
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        # llama.cpp falls back to 11, Falcon's end of text; elsewhere that is a plain word.
        "eos_token_id": fields.need("tokenizer.ggml.eos_token_id"),
        "pad_token_id": fields.get("tokenizer.ggml.padding_token_id"),
    }


def _tokenizer(fields: _Fields) -> Tokenizer:
    """The byte-level BPE that the file describes.

    Raises:
        WeightsError: another kind of tokenizer, or a field is missing.
    """
    kind, split = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or split not in ("smollm", "gpt-2"):
        raise WeightsError(
            f"GGUF tokenizer {kind!r} with splitter {split!r}",
            expected="'gpt2' with 'smollm' or 'gpt-2'",
            where=str(fields.file),
        )
    tokens: list[str] = fields.need("tokenizer.ggml.tokens")
    merges = [tuple(line.split(" ", 1)) for line in fields.need("tokenizer.ggml.merges")]
    vocab = {token: i for i, token in enumerate(tokens)}
    rust = RustTokenizer(models.BPE(vocab=vocab, merges=merges))  # pyright: ignore[reportArgumentType]
    pieces: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if split == "smollm" else []
    pieces.append(pre_tokenizers.Split(Regex(GPT2_SPLIT), "isolated"))
    pieces.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    rust.pre_tokenizer = pre_tokenizers.Sequence(pieces)
    rust.decoder = decoders.ByteLevel()
    special = _special_ids(fields)
    control = [AddedToken(tokens[i], special=True, normalized=False)
               for i in _control_ids(fields, special, len(tokens))]  # fmt: skip
    rust.add_special_tokens(control)
    # The instruct models end a turn with <|im_end|>, which the file names as eos.
    return Tokenizer(
        rust,
        bos_id=special["bos_token_id"],
        eos_id=fields.need("tokenizer.ggml.eos_token_id"),
        pad_id=special["pad_token_id"],
    )


def _control_ids(fields: _Fields, special: dict[str, int | None], count: int) -> list[int]:
    """Ids of control tokens; without types all tokens are plain but those with a role.

    Raises:
        WeightsError: not one type for each token, or a role is given to no token.
    """
    types: list[int] | None = fields.get("tokenizer.ggml.token_type")
    if types is not None and len(types) != count:
        raise WeightsError(
            f"{len(types)} token types", expected=f"{count}, as many as tokens",
            where=str(fields.file),
        )  # fmt: skip
    roles = sorted({i for i in special.values() if i is not None})
    if roles[-1] >= count:
        raise WeightsError(
            f"special token {roles[-1]}", expected=f"at most {count - 1}, the last token",
            where=str(fields.file),
        )  # fmt: skip
    return roles if types is None else [i for i, kind in enumerate(types) if kind == CONTROL_TOKEN]

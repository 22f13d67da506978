"""MPT-1B-RedPajama as its makers published it (`MosaicGPT`) -> transformers' MPT, with norms on queries and keys.

Source of names and options: github.com/mosaicml/examples, examples/llm/src/models (mosaic_gpt.py,
layers/gpt_blocks.py, layers/attention.py, configuration_mosaic_gpt.py). Versions differ in what they call the attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensorium.core.errors import ConfigError
from sensorium.interop.converted import write_folder
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.interop.originals.base import read_json
from sensorium.interop.torch_file import read_checkpoint

BLOCK = "transformer.blocks.#."
KEYS = KeyMap(
    rules=(
        Rule("transformer.wte.weight", "transformer.wte.weight"),
        Rule("transformer.norm_f.weight", "transformer.norm_f.weight"),
        *(Rule(f"{BLOCK}{theirs}.weight", f"{BLOCK}{ours}.weight")
          for attention in ("attn", "causal_attn")
          for theirs, ours in ((f"{attention}.{name}", f"attn.{name}") for name in ("Wqkv", "out_proj", "q_ln", "k_ln"))),
        Rule(f"{BLOCK}ln_1.weight", f"{BLOCK}norm_1.weight"),
        Rule(f"{BLOCK}ln_2.weight", f"{BLOCK}norm_2.weight"),
        Rule(f"{BLOCK}mlp.mlp_up.weight", f"{BLOCK}ffn.up_proj.weight"),
        Rule(f"{BLOCK}mlp.mlp_down.weight", f"{BLOCK}ffn.down_proj.weight"),
    ),
)  # fmt: skip
SIZES = ("d_model", "n_heads", "n_layers", "max_seq_len", "vocab_size")
# What is not computed otherwise here, and what a file may leave out.
FIXED: dict[str, Any] = {"alibi": True, "attn_qk_ln": True, "no_bias": True, "mlp_ratio": 4, "alibi_bias_max": 8,
                         "prefix_lm": False, "attn_clip_qkv": None, "softmax_scale": None, "logit_scale": None}  # fmt: skip
SAID = ("alibi", "attn_qk_ln", "no_bias")


def mpt_arch(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The config of an MPT that computes the same, beside the norms.

    Raises:
        ConfigError: it is of another type, lacks a size, or is built otherwise.
    """
    if config.get("model_type") != "mosaic_gpt":
        raise ConfigError(f"config.json of type {config.get('model_type')!r}", expected="'mosaic_gpt'", where=where)
    lost = [name for name in SIZES if name not in config]
    if lost:
        raise ConfigError(f"a mosaic_gpt without {', '.join(lost)}", where=where)
    said = {k: config.get(k, None if k in SAID else v) for k, v in FIXED.items()}
    other = [f"{k}={said[k]}" for k, v in FIXED.items() if said[k] != v]
    if other:
        raise ConfigError(f"a mosaic_gpt with {', '.join(other)}", expected=str(FIXED), where=where)
    return {"model_type": "mpt"} | {name: config[name] for name in SIZES}


def convert_mosaic_gpt(source: Path, folder: Path) -> None:
    """Write `folder` in transformers' layout, atomically.

    Raises:
        ConfigError: it is built otherwise.
        WeightsError: there are no tensors, or others.
    """
    arch = mpt_arch(read_json(source / "config.json"), str(source))
    write_folder(folder, KEYS.to_ours(read_checkpoint(source)), arch, source)

"""The adapters of a trained model alone, in peft's layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig, transformers_config
from sensorium.backbones.prefix import PREFIX_NAME, build_prefix
from sensorium.core.atomic import atomic_folder, write_json
from sensorium.core.errors import ConfigError
from sensorium.interop.onto import whole_tensors
from sensorium.interop.saved import read_model_config
from sensorium.model.adapter import LORA_MARK, MAGNITUDE
from sensorium.model.config import LoraConfig, ModelConfig, PrefixConfig

LM = "backbone.lm."
TOWER = "tower."
"""What transformers' own model is called in an encoder of ours."""
PEFT = "base_model.model."
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
VECTORS = "prompt_embeddings"
"""peft's name of a prefix's only tensor."""


def export_adapter(folder: Path, out: Path) -> int:
    """Write `adapter_config.json` and `adapter_model.safetensors`: the LLM's, low-rank or a prefix, into the folder, an encoder's
    into a folder in it that is called as its part (`encoders.image`).

    Returns:
        How many layers are adapted.

    Raises:
        ConfigError: the model has none of these.
    """
    config = read_model_config(folder)
    stored = whole_tensors(folder)
    matrices = {k: v for k, v in stored.items() if LORA_MARK in k}
    prefix_tuned = isinstance(config.adapter, PrefixConfig)
    if not prefix_tuned and not (config.low_rank and matrices):
        kind = "none" if config.adapter is None else config.adapter.kind
        raise ConfigError(f"no low-rank matrices to export: the model's adapter is {kind}",
                          expected="adapter lora or prefix, trained", where=str(folder))  # fmt: skip
    with atomic_folder(out) as target:
        if prefix_tuned:
            _write_prefix(target, config, stored)
        for prefix, lora in config.low_rank.items():
            mine = {k: v for k, v in matrices.items() if k.startswith(prefix)}
            where = adapter_folder(target, prefix)
            where.mkdir(exist_ok=True)
            _write(where, lora, _named(mine, prefix), {
                "base_model_name_or_path": _source(config, prefix),
                "task_type": "CAUSAL_LM" if prefix == "backbone." else None,
            })  # fmt: skip
    return len({k.partition(".lora_")[0] for k in matrices}) + prefix_tuned * config.backbone.num_layers


def adapter_folder(folder: Path, prefix: str) -> Path:
    """Where the adapter of this part lies in an exported folder."""
    return folder if prefix == "backbone." else folder / prefix.removesuffix(".")


def _named(matrices: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """By the names that the layers have in transformers' own model."""
    if prefix == "backbone.":
        return {k.removeprefix(LM): v for k, v in matrices.items()}
    return {k.removeprefix(prefix).removeprefix(TOWER): v for k, v in matrices.items()}


def _source(config: ModelConfig, prefix: str) -> str | None:
    """What the weights beside the adapter are called."""
    head, _, kind = prefix.removesuffix(".").partition(".")
    part: Any = config.backbone if head == "backbone" else config.lanes[kind].encoder
    source = part.weights[0] if part.weights else None
    return getattr(source, "id", None) or getattr(source, "path", None)


def _write(folder: Path, lora: LoraConfig, matrices: dict[str, Tensor], about: dict[str, Any]) -> None:
    layers = sorted({k.partition(".lora_")[0] for k in matrices})
    last = {name.rpartition(".")[2] for name in layers}
    # Other targets choose among layers of one name; then each is listed.
    targets = sorted(last if last <= set(lora.targets) else set(layers))
    values = {
        "peft_type": "LORA", **about, "r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "use_dora": lora.dora, "use_rslora": lora.rslora,
        "bias": "none", "target_modules": targets, "inference_mode": True,
    }  # fmt: skip
    # A vector of lengths is a module's only weight here, and has no name of its own there.
    tensors = {PEFT + k.replace(f"{MAGNITUDE}.weight", MAGNITUDE): v
               for k, v in matrices.items()}  # fmt: skip
    save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
    write_json(folder / CONFIG, values)


def _write_prefix(folder: Path, config: ModelConfig, stored: Mapping[str, Tensor]) -> None:
    """A prefix as peft keeps it: the vectors themselves, whatever layers they came from."""
    assert isinstance(config.adapter, PrefixConfig)
    assert isinstance(config.backbone, CausalLMConfig)
    mine = f"backbone.{PREFIX_NAME}."
    weights = {k.removeprefix(mine): v for k, v in stored.items() if k.startswith(mine)}
    hf_config = transformers_config(config.backbone.arch)
    prefix = build_prefix(hf_config, config.adapter.length, config.adapter.hidden, next(iter(weights.values())))
    prefix.load_state_dict(weights)
    with torch.no_grad():
        vectors = prefix.vectors()
    values = {
        "peft_type": "PREFIX_TUNING", "task_type": "CAUSAL_LM", "base_model_name_or_path": _source(config, "backbone."),
        "num_virtual_tokens": prefix.length, "num_layers": prefix.layers, "num_attention_heads": prefix.heads,
        "token_dim": vectors.shape[1] // (2 * prefix.layers), "num_transformer_submodules": 1,
        "prefix_projection": False, "inference_mode": True,
    }  # fmt: skip
    save_file({VECTORS: vectors.contiguous()}, folder / TENSORS, metadata={"format": "pt"})
    write_json(folder / CONFIG, values)

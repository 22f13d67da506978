"""An adapter in peft's layout, put onto a model of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sensorium.backbones.prefix import PREFIX_NAME
from sensorium.core.atomic import atomic_folder, write_json
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.interop.adapter_export import (
    CONFIG,
    LM,
    PEFT,
    TENSORS,
    TOWER,
    VECTORS,
    adapter_folder,
)
from sensorium.interop.onto import read_about, whole_tensors
from sensorium.interop.originals.base import read_json
from sensorium.interop.saved import read_model_config
from sensorium.interop.side_files import copy_side_files
from sensorium.model.adapter import LORA_MARK, MAGNITUDE, place_of, target_names
from sensorium.model.config import AdapterConfig, LoraConfig, ModelConfig, PrefixConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.pretrained import read_file

PLAIN_LORA = {"bias": "none", "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None,
              "fan_in_fan_out": False, "lora_bias": False}  # fmt: skip
"""Values of adapter_config.json; others mean more than a product of two matrices."""


def read_lora(values: dict[str, Any], where: str) -> LoraConfig:
    """The config of an adapter, its targets aside.

    Raises:
        WeightsError: it means more than low-rank products and lengths.
    """
    kind = values.get("peft_type", "LORA")
    if kind != "LORA":
        raise WeightsError(f"an adapter of peft's type {kind}", expected="LORA", where=where)
    if "r" not in values or "lora_alpha" not in values:
        raise WeightsError("low-rank matrices and no r and lora_alpha for them", where=where)
    more = sorted(k for k, plain in PLAIN_LORA.items() if values.get(k) not in (plain, None, [], {}))
    if more:
        raise WeightsError(f"an adapter with {', '.join(more)}", expected="plain low-rank matrices", where=where)
    return LoraConfig(
        rank=int(values["r"]), alpha=float(values["lora_alpha"]), dropout=float(values.get("lora_dropout") or 0.0),
        dora=bool(values.get("use_dora")), rslora=bool(values.get("use_rslora")),
    )  # fmt: skip


def import_adapter(folder: Path, onto: Path, out: Path) -> ModelConfig:
    """Write a model of ours together with an adapter, which stays apart from its weights.

    Args:
        folder: `adapter_config.json` and `adapter_model.safetensors`; of encoders in folders that are
            called as the part, as `export --adapter-only` writes them.
        onto: the model's folder.

    Raises:
        ConfigError: there is no adapter, or the model has one in this place.
        WeightsError: the adapter does not fit the model.
    """
    config = read_model_config(onto)
    with torch.device("meta"):
        model = MultimodalModel(config)
    tensors: dict[str, Tensor] = {}
    prefixes = ["backbone.", *(f"encoders.{kind}." for kind in config.lanes)]
    found = [p for p in prefixes if (adapter_folder(folder, p) / CONFIG).exists()]
    if not found:
        raise ConfigError(f"no {CONFIG}", expected="an adapter in peft's layout", where=str(folder))
    for prefix in found:
        if prefix in config.low_rank or (prefix == "backbone." and config.adapter is not None):
            raise ConfigError("the model has an adapter already", where=str(onto),
                              fix="merge it first: sensorium merge")  # fmt: skip
        where = adapter_folder(folder, prefix)
        is_prefix = read_json(where / CONFIG).get("peft_type") == "PREFIX_TUNING" and prefix == "backbone."
        mine, adapter = _read_prefix(where, config) if is_prefix else _read(where, prefix, model)
        tensors |= mine
        config = _with_adapter(config, prefix, adapter)
    values = read_about(onto) | {"model": config.to_dict()}
    with atomic_folder(out) as target:
        save_file(whole_tensors(onto) | tensors,
                  target / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
        write_json(target / "config.json", values)
        copy_side_files(onto, target)
    return config


def _with_adapter(config: ModelConfig, prefix: str, lora: AdapterConfig) -> ModelConfig:
    if prefix == "backbone.":
        return config.model_copy(update={"adapter": lora})
    kind = prefix.removesuffix(".").partition(".")[2]
    lane = config.lanes[kind].model_copy(update={"adapter": lora})
    return config.model_copy(update={"lanes": {**config.lanes, kind: lane}})


def _read(folder: Path, prefix: str, model: MultimodalModel) -> tuple[dict[str, Tensor], LoraConfig]:
    """Low-rank matrices by our names, and the config with their targets.

    Raises:
        WeightsError: they are no pairs, or of layers that the model has not in this form.
    """
    lora = read_lora(read_json(folder / CONFIG), str(folder / CONFIG))
    inside = _prefix_inside(prefix, model)
    stored = {inside + _ours(name.removeprefix(PEFT)): v for name, v in read_file(folder / TENSORS).items()}
    layers = sorted({name.partition(f".{LORA_MARK}")[0] for name in stored})
    wanted = {f"{layer}.{half}.weight" for layer in layers
              for half in ("lora_A", "lora_B", *([MAGNITUDE] if lora.dora else []))}  # fmt: skip
    if wanted != set(stored):
        odd = min(wanted ^ set(stored))
        raise WeightsError(f"{odd} is missing, or is no low-rank matrix", where=str(folder / TENSORS))
    for layer in layers:
        _check(layer, stored, model, str(folder / TENSORS))
    module = model.backbone.lm if prefix == "backbone." else model.get_submodule(prefix.removesuffix("."))
    return stored, _targeted(lora, module, layers, LM if prefix == "backbone." else prefix)


def _read_prefix(folder: Path, config: ModelConfig) -> tuple[dict[str, Tensor], PrefixConfig]:
    """A prefix's vectors, and its config.

    Raises:
        ConfigError: the LLM cannot have one.
        WeightsError: it has other vectors.
    """
    vectors = read_file(folder / TENSORS).get(VECTORS)
    if vectors is None or vectors.ndim != 2:
        raise WeightsError(f"no matrix {VECTORS}", where=str(folder / TENSORS))
    adapter = PrefixConfig(length=len(vectors))
    with torch.device("meta"):
        model = MultimodalModel(_with_adapter(config, "backbone.", adapter))
    name = f"backbone.{PREFIX_NAME}.embedding.weight"
    shape = model.get_parameter(name).shape
    if vectors.shape != shape:
        raise WeightsError(f"a prefix of shape {list(vectors.shape)}", expected=str(list(shape)), where=str(folder))
    return {name: vectors}, adapter


def _prefix_inside(prefix: str, model: MultimodalModel) -> str:
    """What stands before the names of transformers' own model."""
    if prefix == "backbone.":
        return LM
    towers = hasattr(model.get_submodule(prefix.removesuffix(".")), TOWER.removesuffix("."))
    return prefix + TOWER if towers else prefix


def _ours(name: str) -> str:
    return f"{name}.weight" if name.endswith(MAGNITUDE) else name


def _check(layer: str, stored: dict[str, Tensor], model: nn.Module, where: str) -> None:
    """Refuse low-rank matrices that no linear layer has the shape for.

    Raises:
        WeightsError: naming the layer.
    """
    try:
        weight = model.get_parameter(f"{layer}.weight")
    except AttributeError:
        raise WeightsError(f"the model has no layer {layer}", where=where,
                           fix="name the model that the adapter was trained beside") from None  # fmt: skip
    shape = (len(stored[f"{layer}.lora_B.weight"]), stored[f"{layer}.lora_A.weight"].shape[1])
    if shape != tuple(weight.shape):
        raise WeightsError(f"low-rank matrices for {layer} of shape {list(shape)}",
                           expected=str(list(weight.shape)), where=where)  # fmt: skip


def _targeted(lora: LoraConfig, module: nn.Module, layers: list[str], prefix: str) -> LoraConfig:
    """The config with targets that mean these layers and no others."""
    inside = {layer.removeprefix(prefix) for layer in layers}
    short = lora.model_copy(update={"targets": tuple(sorted({n.rpartition(".")[2] for n in inside}))})
    if set(target_names(module, short, place_of("backbone."))) == inside:
        return short
    return lora.model_copy(update={"targets": tuple(sorted(inside))})

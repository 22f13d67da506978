"""The low-rank adapter of a trained model alone, in peft's layout, for its language model."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from sensorium.core.atomic import atomic_folder, write_json
from sensorium.core.errors import ConfigError
from sensorium.interop.saved import read_model_config
from sensorium.model.config import LoraConfig
from sensorium.model.learning import LORA_MARK
from sensorium.nn.pretrained import read_file

LM = "backbone.lm."


def export_adapter(folder: Path, out: Path) -> int:
    """Write `adapter_config.json` and `adapter_model.safetensors`.

    Returns:
        How many layers are adapted.

    Raises:
        ConfigError: the model has no low-rank adapter.
    """
    config = read_model_config(folder)
    matrices = {k: v for k, v in read_file(folder / "model.safetensors").items() if LORA_MARK in k}
    lora = config.adapter
    if not isinstance(lora, LoraConfig) or not matrices:
        kind = "none" if lora is None else lora.kind
        raise ConfigError(f"no low-rank matrices to export: the model's adapter is {kind}",
                          expected="adapter lora, trained", where=str(folder))  # fmt: skip
    layers = sorted({k.removeprefix(LM).partition(".lora_")[0] for k in matrices})
    source = config.backbone.weights[0] if config.backbone.weights else None
    named = getattr(source, "id", None) or getattr(source, "path", None)
    values = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": named,
        "r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "bias": "none",
        "target_modules": sorted({name.rpartition(".")[2] for name in layers}),
        "inference_mode": True,
    }  # fmt: skip
    with atomic_folder(out) as target:
        named_tensors = {f"base_model.model.{k.removeprefix(LM)}": v for k, v in matrices.items()}
        save_file(named_tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})
        write_json(target / "adapter_config.json", values)
    return len(layers)

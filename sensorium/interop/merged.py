"""A model whose low-rank adapters are part of its weights, and the way back.

What is merged cannot be taken out again by subtraction: every number was rounded. So a merged model keeps what
its tensors replaced, in `unmerge.safetensors`: the low-rank matrices, and of the weights only those that the model
stored itself. Where these come from a source, they come from there again.
A model that is kept as a difference from another one (`interop/onto.py`) comes out whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from sensorium.core.atomic import atomic_folder, write_json
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.interop.onto import read_about, whole_tensors
from sensorium.interop.saved import load_model, read_model_config
from sensorium.interop.side_files import copy_side_files
from sensorium.model.adapter import LORA_MARK
from sensorium.model.check import refuse_quantised
from sensorium.model.config import AdapterConfig, ModelConfig
from sensorium.nn.pretrained import read_file

KEPT, KEPT_CONFIG = "unmerge.safetensors", "unmerge.json"
UNMERGEABLE = {
    "adaption_prompt": "adaption prompts are vectors that layers attend to, and no weight computes that",
    "prefix": "a prefix is keys and values that layers attend to, and no weight computes that",
    "bias_norm": "its biases and norms are the LLM's own already",
}


def merge(folder: Path, out: Path, *, forget: bool = False) -> int:
    """Write a model without low-rank adapters that computes what it did with them.

    Args:
        forget: do not keep what `unmerge` needs.

    Returns:
        How many layers changed.

    Raises:
        ConfigError: nothing can be merged; the message says why.
    """
    config = read_model_config(folder)
    stored = whole_tensors(folder)
    matrices = {name: value for name, value in stored.items() if LORA_MARK in name}
    if not config.low_rank or not matrices:
        raise _refusal(config.adapter, folder)
    refuse_quantised(config, "a merged copy", str(folder))
    state = load_model(folder)[0].state_dict()
    targets = _targets(matrices)
    # Compact, and of a storage of its own each.
    changed = {name: state[name].detach().contiguous().clone() for name in targets}
    plain = {name: value for name, value in stored.items() if name not in matrices} | changed
    with atomic_folder(out) as target:
        _write(target, folder, plain, without_low_rank(config))
        if not forget:
            kept = matrices | {name: stored[name] for name in targets if name in stored}
            save_file(kept, target / KEPT, metadata={"format": "pt"})
            (target / KEPT_CONFIG).write_bytes((folder / "config.json").read_bytes())
    return len(targets)


def unmerge(folder: Path, out: Path, *, base: bool = False) -> int:
    """Write the model as it was before `merge`, bit for bit: its weights, and beside them the adapters.

    Args:
        base: leave the adapters out.

    Returns:
        How many layers changed.

    Raises:
        ConfigError: the model was not merged here, or what it was is forgotten.
        WeightsError: its files are of different models.
    """
    merged = read_model_config(folder)
    if not (folder / KEPT).exists() or not (folder / KEPT_CONFIG).exists():
        raise ConfigError("a model that does not keep what it was before merging",
                          expected=f"{KEPT} and {KEPT_CONFIG}, as `sensorium merge` writes them without --forget",
                          where=str(folder), fix="use the model that was merged")  # fmt: skip
    kept = dict(read_file(folder / KEPT).items())
    values = json.loads((folder / KEPT_CONFIG).read_text(encoding="utf-8"))
    config = ModelConfig.from_dict(values["model"], where=str(folder / KEPT_CONFIG))
    matrices = {name for name in kept if LORA_MARK in name}
    targets = _targets(matrices)
    now = whole_tensors(folder)
    if without_low_rank(config) != merged or not targets <= set(now):
        raise WeightsError(f"{KEPT} is of another model", where=str(folder), fix="use the model that was merged")
    tensors = {name: value for name, value in now.items() if name not in targets} | kept
    if base:
        tensors = {name: value for name, value in tensors.items() if name not in matrices}
    with atomic_folder(out) as target:
        _write(target, folder, tensors, without_low_rank(config) if base else config)
    return len(targets)


def without_low_rank(config: ModelConfig) -> ModelConfig:
    """The config without its low-rank adapters; others stay."""
    lanes = {kind: lane.model_copy(update={"adapter": None}) for kind, lane in config.lanes.items()}
    adapter = None if "backbone." in config.low_rank else config.adapter
    return config.model_copy(update={"lanes": lanes, "adapter": adapter})


def _targets(matrices: Iterable[str]) -> set[str]:
    """The weights that low-rank matrices stand beside."""
    return {name.partition(f".{LORA_MARK}")[0] + ".weight" for name in matrices}


def _write(target: Path, folder: Path, tensors: dict[str, Tensor], config: ModelConfig) -> None:
    """A model folder with other tensors and another config."""
    write_json(target / "config.json", read_about(folder) | {"model": config.to_dict()})
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    copy_side_files(folder, target)


def _refusal(adapter: AdapterConfig | None, folder: Path) -> ConfigError:
    found = "no adapter" if adapter is None else f"adapter {adapter.kind}"
    why = UNMERGEABLE.get(adapter.kind, "it has not been trained") if adapter else "its weights are all there is"
    return ConfigError(f"a model with {found}, which cannot be merged: {why}",
                       expected="low-rank adapters: lora, with or without dora", where=str(folder))  # fmt: skip

"""Training that starts from a trained model: parts that fit are taken, others stay new."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.interop.saved import plain_name, read_model_config, tied_names
from sensorium.model.adapter import has_adapter, merge_into
from sensorium.model.learning import own_names, owner
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.pretrained import read_file


@dataclass(frozen=True, slots=True)
class Started:
    """What came of a saved model."""

    names: set[str]
    """The model's tensors that now differ from what their sources provide."""
    new: list[str]
    """Parts of this model that the saved one does not have in this form."""


def start_from(model: MultimodalModel, folder: Path) -> Started:
    """Copy the parts of a saved model that fit into a built one, whole parts only.

    An adapter of another form, or one that this model has no adapter for, is merged into the LLM.

    Args:
        model: built, with its adapter (`inject_adapter`).

    Raises:
        WeightsError: no part of the saved model fits.
    """
    saved = read_model_config(folder)
    stored = dict(read_file(folder / "model.safetensors").items())
    state = model.state_dict()
    by_plain = {plain_name(name): name for name in state}
    adapter = {n: stored.pop(n) for n in list(stored) if "lora_" in n}
    unfit: set[str] = set()
    if adapter and saved.backbone != model.config.backbone:
        # It was trained beside other weights.
        unfit.add("adapter" if has_adapter(model) else "backbone")
        adapter = {}
    elif adapter and has_adapter(model) and saved.adapter == model.config.adapter:
        stored |= adapter
        adapter = {}
    unfit |= {owner(n) for n, v in stored.items()
              if n not in by_plain or state[by_plain[n]].shape != v.shape}  # fmt: skip
    here = set(stored) | set(tied_names(folder))
    unfit |= {owner(n) for n in own_names(model) if plain_name(n) not in here}
    taken = {by_plain[n]: v for n, v in stored.items() if owner(n) not in unfit}
    if adapter:
        if saved.adapter is None:
            raise WeightsError("adapter weights without an adapter config", where=str(folder))
        plain = {n: state[name] for n, name in by_plain.items() if owner(n) == "backbone"}
        merge_into(plain, adapter, saved.adapter)
        merged = {n.partition(".lora_")[0] + ".weight" for n in adapter}
        taken |= {by_plain[n]: plain[n] for n in merged}
    if not taken:
        raise WeightsError(
            "nothing of this model fits the recipe's",
            expected=f"one of the parts {', '.join(sorted({owner(n) for n in state}))}",
            where=str(folder),
            fix="start from a model with the same encoder, projector or LLM, or leave `start` out",
        )
    _copy(state, taken)
    return Started(set(taken), sorted(unfit & {owner(n) for n in state}))


def _copy(state: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            state[name].copy_(value)

"""Modules that an objective owns: they learn with a stage and are not part of the model.

While a stage runs they are the model's part `objective`, so that what learns, the optimiser, the
memory estimate and checkpoints see them as they see any part. Afterwards the model is as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sensorium.core.hashing import stable_int
from sensorium.model.learning import OBJECTIVE
from sensorium.model.multimodal import MultimodalModel

PREFIX = f"{OBJECTIVE}."


def own_module(objective: Any) -> nn.Module | None:
    """What an objective owns: its attribute `module`, if it has one."""
    return getattr(objective, "module", None)


@contextmanager
def beside(model: MultimodalModel, objective: Any) -> Iterator[None]:
    """Have an objective's own modules be the model's part `objective` while the block lasts."""
    module = own_module(objective)
    if module is None:
        yield
        return
    model.generators.watch(module)
    model.add_module(OBJECTIVE, module.to(model.device).eval())
    try:
        yield
    finally:
        delattr(model, OBJECTIVE)


def begin(objective: Any, model: MultimodalModel) -> None:
    """Tell an objective that wants to know that its stage begins, with the model as it is now."""
    getattr(objective, "begin", _nothing)(model)


def stepped(objective: Any, model: MultimodalModel) -> None:
    """Tell an objective that wants to know that the model has just learnt."""
    getattr(objective, "stepped", _nothing)(model)


def _nothing(model: MultimodalModel) -> None:
    """Most objectives keep nothing of a model."""


@contextmanager
def own_seed(seed: int) -> Iterator[None]:
    """Draw first weights apart from all other random numbers: they are then the same whatever
    other stages build, and in every resumed run."""
    with torch.random.fork_rng():
        torch.manual_seed(stable_int("objective", seed))
        yield


def owned_tensors(model: MultimodalModel) -> dict[str, Tensor]:
    """Copies of the tensors of the part `objective`, by their names in the model."""
    return {
        name: value.detach().cpu().clone()
        for name, value in model.state_dict().items()
        if name.startswith(PREFIX)
    }


def go_on_from(model: MultimodalModel, kept: Mapping[str, Tensor]) -> None:
    """Fill the part `objective` with what this stage, or one before it, taught.

    A child of an objective's module takes over the tensors of a child that had the same name and the same
    form, as a whole or not at all: a teacher of one stage can so be asked in the next.
    """
    state = {n: v for n, v in model.state_dict().items() if n.startswith(PREFIX)}
    differs = {
        _child(name)
        for name, value in state.items()
        if name not in kept or kept[name].shape != value.shape
    } | {_child(name) for name in kept if name not in state}
    with torch.no_grad():
        for name, value in state.items():
            if _child(name) not in differs:
                value.copy_(kept[name])


def _child(name: str) -> str:
    return name.removeprefix(PREFIX).partition(".")[0]

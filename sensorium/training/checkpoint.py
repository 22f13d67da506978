"""Checkpoints: weights, optimiser, data position, random numbers, in one atomic folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sensorium.core.atomic import atomic_folder, recover_folder, write_json
from sensorium.core.errors import CheckpointError
from sensorium.data.mixture import MixtureState
from sensorium.nn.pretrained import read_file

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run has come."""

    stage: int
    step: int
    """Optimiser steps done in this stage."""
    state: MixtureState
    """After the last batch."""
    bad_in_row: int = 0
    """Steps, up to the last one, whose loss or gradient was not finite."""


@dataclass(slots=True)
class Checkpoint:
    """Everything needed to go on as if nothing had happened."""

    stage: int
    step: int
    """Optimiser steps done in this stage."""
    counts: list[int]
    """Mixture state after the last batch."""
    log_bytes: int
    """Length of the log when this was written; later lines are cut off on resume."""
    precision: str
    weights: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    rng: dict[str, Tensor]
    recipe: dict[str, Any]
    data: list[list[int]]
    """Rows of every source of every stage, and the stage's steps: the order depends on them."""
    finished: bool = False
    bad_in_row: int = 0
    """See `Position`."""
    plan: list[int] = field(default_factory=list[int])
    """`MixtureState.plan()`; checkpoints of version 0.1 have none."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in `folder`, atomically."""
    with atomic_folder(folder) as target:
        save_file(_whole(checkpoint.weights), target / "weights.safetensors")
        save_file(_whole(checkpoint.optimiser), target / "optimiser.safetensors")
        save_file(checkpoint.rng, target / "rng.safetensors")
        write_json(
            target / "state.json",
            {
                "format": FORMAT,
                "stage": checkpoint.stage,
                "step": checkpoint.step,
                "counts": checkpoint.counts,
                "plan": checkpoint.plan,
                "log_bytes": checkpoint.log_bytes,
                "precision": checkpoint.precision,
                "finished": checkpoint.finished,
                "bad_in_row": checkpoint.bad_in_row,
                "data": checkpoint.data,
                "recipe": checkpoint.recipe,
            },
        )


def _whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in tensors.items()}


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in `folder`, or None where none was ever written.

    Raises:
        CheckpointError: it is damaged.
    """
    recover_folder(folder)
    if not folder.exists():
        return None
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"state.json is not readable: {error}", where=str(folder)) from None
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint format {state.get('format')!r}", expected=str(FORMAT), where=str(folder)
        )
    return Checkpoint(
        stage=state["stage"],
        step=state["step"],
        counts=list(state["counts"]),
        log_bytes=state["log_bytes"],
        precision=state["precision"],
        weights=read_file(folder / "weights.safetensors"),
        optimiser=read_file(folder / "optimiser.safetensors"),
        rng=read_file(folder / "rng.safetensors"),
        recipe=state["recipe"],
        data=state["data"],
        finished=state["finished"],
        # Checkpoints of version 0.1 do not say.
        bad_in_row=state.get("bad_in_row", 0),
        plan=list(state.get("plan", [])),
    )


def read_rng() -> dict[str, Tensor]:
    """torch's random state, the GPU's too where there is one."""
    state = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_rng(state: dict[str, Tensor]) -> None:
    """Put torch's random state back."""
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])

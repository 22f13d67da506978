"""Checkpoints: weights, optimiser, data position, random numbers, in one atomic folder.

`checkpoint` is the newest, `checkpoint.1` the one before. `state.json` holds the SHA-256 of every other file and of
itself: a checkpoint is taken as a whole or not at all. Processes that divide the model write one in shares (`shares.py`).
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensorium.core.atomic import recover_folder, rotating_folder, versions, write_json
from sensorium.core.errors import CheckpointError, WeightsError
from sensorium.core.hashing import sha256_bytes, sha256_file
from sensorium.data.mixture import MixtureState
from sensorium.nn.pretrained import read_file
from sensorium.training.disk import naming
from sensorium.training.shares import Share, collect, read_shares
from sensorium.training.tensor_file import write_tensors

FORMAT = 2
SHARED = 3
"""The format in shares."""
UNHASHED = 1
"""The format before hashes."""
KEEP = 2


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
    spikes: dict[str, Any] = field(default_factory=dict[str, Any])
    """See `SpikeWatch`."""


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
    weights: Mapping[str, Tensor]
    optimiser: Mapping[str, Tensor]
    rng: dict[str, Tensor]
    recipe: dict[str, Any]
    data: list[list[int]]
    """Rows of every source of every stage, and the stage's steps: the order depends on them."""
    finished: bool = False
    bad_in_row: int = 0
    """See `Position`."""
    plan: list[int] = field(default_factory=list[int])
    """`MixtureState.plan()`; checkpoints of version 0.1 have none."""
    spikes: dict[str, Any] = field(default_factory=dict[str, Any])
    """See `SpikeWatch`."""


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, *, keep: int = KEEP, share: Share | None = None
) -> None:
    """Make this the newest checkpoint, atomically.

    Args:
        keep: how many stay, this one included.
        share: the first process's, which holds weights and optimiser in place of `checkpoint`.

    Raises:
        OSError: it could not be written, and names the file; the ones before it are untouched.
        CheckpointError: another process did not write its share.
    """
    with rotating_folder(folder, keep, None if share is None else share.folder) as target:
        files: dict[str, Mapping[str, Tensor]] = {"weights": checkpoint.weights, "optimiser": checkpoint.optimiser}
        shared: dict[str, Any] = {}
        hashes: dict[str, str] = {}
        if share is not None:
            share.write()
            hashes, shared["cuts"] = collect(share)
            files.clear()
        files["rng"] = checkpoint.rng
        hashes |= {name: write_tensors(target / f"{name}.safetensors", t) for name, t in files.items()}
        state: dict[str, Any] = shared | {
            "format": FORMAT if share is None else SHARED,
            "stage": checkpoint.stage,
            "step": checkpoint.step,
            "counts": checkpoint.counts,
            "plan": checkpoint.plan,
            "log_bytes": checkpoint.log_bytes,
            "precision": checkpoint.precision,
            "finished": checkpoint.finished,
            "bad_in_row": checkpoint.bad_in_row,
            "spikes": checkpoint.spikes,
            "data": checkpoint.data,
            "recipe": checkpoint.recipe,
            "sha256": hashes,
        }
        with naming(target / "state.json"):
            write_json(target / "state.json", state | {"own_sha256": _digest(state)})


def _digest(state: dict[str, Any]) -> str:
    return sha256_bytes(json.dumps(state, sort_keys=True).encode())


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint, or None where none was ever written.

    A damaged one is named, and put aside as `checkpoint.damaged`, where no later one takes its place in the row.

    Raises:
        CheckpointError: there are some, and none of them is whole.
    """
    recover_folder(folder)
    damage: list[tuple[Path, CheckpointError]] = []
    for path in versions(folder):
        try:
            found = _read(path)
        except CheckpointError as error:
            damage.append((path, error))
            continue
        for bad, error in damage:
            print(f"{error.at('damaged checkpoint')}; the one before it, {path.name}, is used", file=sys.stderr)
            aside = folder.with_name(f"{folder.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            bad.rename(aside)
        return found
    if damage:
        raise damage[0][1]
    return None


def _read(folder: Path) -> Checkpoint:
    """One checkpoint, checked.

    Raises:
        CheckpointError: it is damaged, or of a format that is not known.
    """
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"state.json is not readable: {error}", where=str(folder)) from None
    if state.get("format") not in (FORMAT, UNHASHED, SHARED):
        raise CheckpointError(
            f"checkpoint format {state.get('format')!r}", expected=f"{FORMAT} or {SHARED}", where=str(folder)
        )
    if state["format"] != UNHASHED:
        _check_hashes(folder, state)
    try:
        weights, optimiser = (_read_tensors(folder, kind, state) for kind in ("weights", "optimiser"))
        rng = read_file(folder / "rng.safetensors")
    except WeightsError as error:
        raise CheckpointError(error.found, where=error.where) from None
    return Checkpoint(
        stage=state["stage"],
        step=state["step"],
        counts=list(state["counts"]),
        log_bytes=state["log_bytes"],
        precision=state["precision"],
        weights=weights,
        optimiser=optimiser,
        rng=rng,
        recipe=state["recipe"],
        data=state["data"],
        finished=state["finished"],
        # Checkpoints of version 0.1 do not say.
        bad_in_row=state.get("bad_in_row", 0),
        spikes=state.get("spikes", {}),
        plan=list(state.get("plan", [])),
    )


def _read_tensors(folder: Path, kind: str, state: dict[str, Any]) -> Mapping[str, Tensor]:
    if state["format"] == SHARED:
        return read_shares(folder, kind, state["cuts"])
    return read_file(folder / f"{kind}.safetensors")


def _check_hashes(folder: Path, state: dict[str, Any]) -> None:
    own = state.pop("own_sha256", None)
    if own != _digest(state):
        raise CheckpointError("state.json was altered: its hash differs", where=str(folder))
    for name, expected in state["sha256"].items():
        path = folder / f"{name}.safetensors"
        try:
            found = sha256_file(path)
        except OSError as error:
            raise CheckpointError(f"is not readable: {error}", where=str(path)) from None
        if found != expected:
            raise CheckpointError(f"SHA-256 is {found[:16]}…", expected=f"{expected[:16]}…", where=str(path))


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

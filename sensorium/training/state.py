"""What of a run goes into its checkpoints, and comes back from them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from sensorium.core.atomic import staging_folder
from sensorium.core.errors import CheckpointError
from sensorium.model.multimodal import MultimodalModel
from sensorium.training.checkpoint import Checkpoint
from sensorium.training.disk import writing
from sensorium.training.distributed.held import Held
from sensorium.training.distributed.ranks import Ranks
from sensorium.training.objectives.owned import PREFIX
from sensorium.training.optimiser import optimiser_tensors, restore_optimiser
from sensorium.training.shares import Cut, Share, rows_of


def copies(model: MultimodalModel, names: Collection[str]) -> dict[str, Tensor]:
    """Copies on the CPU of these tensors of a model that nothing divides."""
    state = model.state_dict()
    return {n: state[n].detach().to("cpu", copy=True) for n in sorted(names) if n in state}


def share_of(
    model: MultimodalModel, held: Held, ranks: Ranks, names: Collection[str], optimiser: dict[str, Tensor], folder: Path
) -> Share:
    """What this process writes of a checkpoint: the rows that it holds, and on the first one all that is not divided.

    Args:
        names: of the model's tensors that are kept.
        optimiser: `optimiser_tensors`, copies.
    """
    state = model.state_dict()
    share = Share(folder, ranks.rank, ranks.world_size, {"weights": {}, "optimiser": {}}, {"weights": {}, "optimiser": {}})
    for name in sorted(set(names) & set(state)):
        if held.rows(name) is not None or ranks.first:
            share.tensors["weights"][name] = held.local(state[name]).detach().to("cpu", copy=True)
            share.cuts["weights"] |= _cut(held, name, name)
    for name, value in optimiser.items():
        parameter, _, key = name.rpartition("|")
        cut = {} if key == "step" else _cut(held, name, parameter)
        if cut or ranks.first:
            share.tensors["optimiser"][name] = value
            share.cuts["optimiser"] |= cut
    return share


def _cut(held: Held, name: str, parameter: str) -> dict[str, Cut]:
    rows = held.rows(parameter)
    return {} if rows is None else {name: [rows.start, *rows.shape]}


def staged(ranks: Ranks, folder: Path) -> Path:
    """The folder that all processes write a checkpoint's shares into; all of them must call it.

    Raises:
        CheckpointError: the first process cannot make it, or another one does not see it.
    """
    made: list[str] = []

    def make() -> None:
        with writing(folder):
            made.append(staging_folder(folder).name)

    def see() -> None:
        if not there.is_dir():
            raise CheckpointError("the first process's folder is not seen here", where=str(there),
                                  expected="one folder that all of them share")  # fmt: skip

    ranks.on_first(make)
    there = folder.with_name(ranks.gather(made)[0][0])
    ranks.on_all(see)
    return there


def restore_weights(model: MultimodalModel, held: Held, saved: Checkpoint) -> dict[str, Tensor]:
    """Put the weights of a checkpoint into the model.

    Returns:
        Those of objectives' own modules, which are not the model's.

    Raises:
        CheckpointError: a tensor does not fit.
    """
    state, owned = model.state_dict(), dict[str, Tensor]()
    with torch.no_grad():
        for name in saved.weights:
            if name.startswith(PREFIX):
                owned[name] = saved.weights[name]
                continue
            rows = held.rows(name)
            value = saved.weights[name] if rows is None else rows_of(saved.weights, name, rows.start, rows.stop)
            if name not in state or (mine := held.local(state[name])).shape != value.shape:
                raise CheckpointError(f"tensor {name} does not fit the model")
            mine.copy_(value)
    return owned


def restore_moments(optimiser: Optimizer, held: Held, named: dict[str, Parameter], saved: Checkpoint) -> None:
    """Put the optimiser's state of a checkpoint back, as far as this process holds what it belongs to."""

    def mine(name: str, parameter: str) -> Tensor:
        rows = held.rows(parameter)
        return saved.optimiser[name] if rows is None else rows_of(saved.optimiser, name, rows.start, rows.stop)

    restore_optimiser(optimiser, named, saved.optimiser, mine)


def moments(optimiser: Optimizer, named: dict[str, Parameter]) -> dict[str, Tensor]:
    """Copies of the optimiser's state by parameter name."""
    return optimiser_tensors(optimiser, {id(p): n for n, p in named.items()})

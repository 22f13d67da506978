"""What a process holds of the model that it trains: all of it, or its rows (`sharding.py`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from sensorium.model.multimodal import MultimodalModel
from sensorium.training.config import Recipe
from sensorium.training.distributed.ranks import Ranks
from sensorium.training.optimiser import Groups, norm_of
from sensorium.training.precision import Chosen, stage_precision


@dataclass(frozen=True, slots=True)
class Rows:
    """Neighbouring rows of a tensor, along its first dimension."""

    start: int
    stop: int
    shape: tuple[int, ...]
    """Of the whole tensor."""


class Held:
    """All of the model, in each process."""

    divided = False
    """Whether processes hold different rows."""
    beside = 0
    """Bytes, about, that are held for a while beside the weights; below zero: other processes hold more of these."""

    def rows(self, name: str) -> Rows | None:
        """What is held of a tensor of the model's state; None: all of it."""
        return None

    def local(self, tensor: Tensor) -> Tensor:
        """The held rows of a tensor of the model, in the memory where they lie."""
        return tensor

    def size(self, tensor: Tensor) -> int:
        """How many numbers of a tensor of the model are held, in the process that holds most."""
        return tensor.numel()

    def pieces(self, groups: Groups) -> Groups:
        """What the optimiser is to see of what learns."""
        return groups

    def take(self) -> None:
        """Behind the backward passes of a step: hand the gradients to the optimiser's pieces."""

    def passed(self) -> None:
        """Behind a backward pass: see to the gradients that it left."""

    def rest(self) -> None:
        """Behind a pass that has no backward pass: hold no more than before it."""

    def norm(self, parameters: Sequence[Parameter]) -> float:
        """Of all gradients together, those of other processes' rows included; all processes must call it."""
        return norm_of(parameters)

    def make_whole(self, names: Collection[str]) -> None:
        """Give the first process these tensors as wholes, and so a model that can be saved."""


WHOLE = Held()


def home(recipe: Recipe, ranks: Ranks) -> torch.device | None:
    """Where a model is to be that processes divide: it goes there in pieces, as it is divided; None: they do not."""
    if recipe.shard == "none" or ranks.world_size == 1:
        return None
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def hold(recipe: Recipe, model: MultimodalModel, ranks: Ranks, fast: Chosen) -> Held:
    """What this process is to hold of a model that it has whole.

    Args:
        fast: the run's number format; a stage may have another.

    Raises:
        ConfigError: the recipe asks to divide what cannot be divided.
    """
    device = home(recipe, ranks)
    if device is None:
        return WHOLE
    # A costly import, which most runs do without.
    from sensorium.training.distributed.sharding import Sharded

    stages = [stage_precision(stage, fast, device).precision for stage in recipe.stages]
    return Sharded(recipe, model, ranks, device, half=all(each == "bf16" for each in stages))

"""Weights, gradients and the optimiser's state divided among the processes (ZeRO's third stage, arXiv:1910.02054), by
torch's `fully_shard` (FSDP2; arXiv:2304.11277).

Divided along their first dimension are the LLM's parameters, layer by layer, and those of an encoder's blocks where the
encoder learns. A layer is gathered when it runs, forward and backward, and its gradient is summed and divided again. What
stands outside of the LLM's layers (embedding, head, last norm) is gathered for a whole pass: the loss reads the head as an
ordinary matrix. The rest of the model, most of which a pass without pictures does not reach, stays whole in every process;
its gradients are summed once a step (`gradients.py`).

The optimiser sees the held rows as ordinary tensors, in the memory where the model has them. So it divides, clips and steps
by the kernels of a process alone; what needs whole matrices (Adafactor) is refused.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from sensorium.core.errors import ConfigError, MissingDependencyError
from sensorium.model.dividing import check_dividing, dividable
from sensorium.model.multimodal import MultimodalModel
from sensorium.training.config import Recipe
from sensorium.training.disk import bytes_of
from sensorium.training.distributed.held import Held, Rows
from sensorium.training.distributed.ranks import Ranks
from sensorium.training.distributed.weights import check_equal
from sensorium.training.optimiser import Groups, norm_of


def check_sharding(recipe: Recipe) -> None:
    """Whether a recipe can be trained with a divided model.

    Raises:
        ConfigError: naming what cannot.
    """
    check_dividing(recipe.model)
    for stage in recipe.stages:
        where = f"stages.{stage.name}"
        if stage.optimiser != "adamw":
            raise ConfigError(f"shard: full with {stage.optimiser}, which reads whole matrices", expected="adamw",
                              where=f"{where}.optimiser", fix="optimiser: adamw, or shard: none")  # fmt: skip
        if stage.compile:
            raise ConfigError("shard: full with compile, which has not been tried together", expected="compile: false",
                              where=f"{where}.compile", fix="compile: false, or shard: none")  # fmt: skip
        if any(learn.rows for learn in stage.learns):
            raise ConfigError("shard: full with single rows that learn", expected="whole parameters",
                              where=f"{where}.learns", fix="leave rows out, or shard: none")  # fmt: skip
        if stage.cache_features and learning_encoders(recipe):
            raise ConfigError("shard: full with cache_features and an encoder that learns in some stage",
                              expected="that all processes run a divided encoder", where=f"{where}.cache_features",
                              fix="cache_features: false, or shard: none")  # fmt: skip


def learning_encoders(recipe: Recipe) -> list[str]:
    """Encoders that some stage teaches, by their names in the model."""
    parts = [learn.part for stage in recipe.stages for learn in stage.learns]
    return sorted({part.partition(".")[2] for part in parts if part.startswith(("encoders.", "adapters."))})


class Sharded(Held):
    """Its rows of the model's large parts, and all of the small ones."""

    divided = True

    def __init__(
        self, recipe: Recipe, model: MultimodalModel, ranks: Ranks, device: torch.device, *, half: bool
    ) -> None:
        """Divide a model, which all processes hold alike; modules move to the device one by one.

        Args:
            half: layers are gathered in bf16, for stages that compute in it.

        Raises:
            ConfigError: the recipe cannot be trained so.
            MissingDependencyError: torch is too old.
            WeightsError: the processes hold other weights.
        """
        check_sharding(recipe)
        if not hasattr(FSDPModule, "reset_iter_state"):
            raise MissingDependencyError(f"shard: full with torch {torch.__version__}", expected="2.13 or later",
                                         fix="pip install -U 'torch>=2.13', or shard: none")  # fmt: skip
        check_equal(ranks, model.state_dict(), "before the model is divided")
        self._model = model
        self._ranks = ranks
        mesh = init_device_mesh(device.type, (ranks.world_size,))
        units = dividable(model, learning_encoders(recipe))
        inside = {id(p) for part in (model.backbone, *units) for p in part.parameters() if p.ndim}
        whole = {p for p in model.parameters() if id(p) not in inside}
        beside = _gathered_bytes(model, units)
        for unit in units:
            fully_shard(unit, mesh=mesh, mp_policy=_policy(unit, device, half=half), ignored_params=whole)
        # The root stays gathered from its forward to its backward pass.
        fully_shard(model, mesh=mesh, reshard_after_forward=False, ignored_params=whole)
        model.to(device)
        # Nothing is written into what a module returns.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        for module in _divided(model):
            # The loop divides by the number of all targets itself.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        # torch notes once in which types gradients are summed, and of what learns then; later stages teach other parts.
        for parameter in model.parameters():
            parameter.requires_grad_(isinstance(parameter, DTensor))
        fully_shard.state(model)._lazy_init()  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]
        self._rows = {name: _rows_of(value, ranks) for name, value in model.state_dict().items() if isinstance(value, DTensor)}
        self.beside = beside - sum((p.numel() - self.size(p)) * p.element_size() for p in model.parameters())
        self._pieces: list[tuple[Parameter, Parameter]] = []

    def rows(self, name: str) -> Rows | None:
        return self._rows.get(name)

    def local(self, tensor: Tensor) -> Tensor:
        return cast(DTensor, tensor.detach()).to_local() if isinstance(tensor, DTensor) else tensor

    def size(self, tensor: Tensor) -> int:
        whole = tensor.numel()
        return -(-len(tensor) // self._ranks.world_size) * (whole // len(tensor)) if isinstance(tensor, DTensor) and whole else whole

    def pieces(self, groups: Groups) -> Groups:
        self._pieces = []
        return [(learn, [(name, self._piece(p)) for name, p in pairs]) for learn, pairs in groups]

    def _piece(self, parameter: Parameter) -> Parameter:
        if not isinstance(parameter, DTensor):
            return parameter
        piece = Parameter(self.local(parameter))
        self._pieces.append((parameter, piece))
        return piece

    def take(self) -> None:
        for parameter, piece in self._pieces:
            piece.grad = None if parameter.grad is None else self.local(parameter.grad)
            parameter.grad = None

    def passed(self) -> None:
        # torch sums behind a backward pass that goes through what the model returned. One that ends at the head does not, and
        # leaves the root gathered, with gradients that nobody takes.
        state = fully_shard.state(self._model)  # pyright: ignore[reportFunctionMemberAccess]
        if any(group.is_unsharded for group in state._fsdp_param_groups):
            state._root_post_backward_final_callback()

    def rest(self) -> None:
        root = self._model
        assert isinstance(root, FSDPModule)
        root.reset_iter_state()

    def norm(self, parameters: Sequence[Parameter]) -> float:
        mine = {id(piece) for _, piece in self._pieces}
        here = norm_of([p for p in parameters if id(p) in mine])
        everywhere = norm_of([p for p in parameters if id(p) not in mine])
        return math.sqrt(sum(each**2 for each in self._ranks.gather(here)) + everywhere**2)

    def make_whole(self, names: Collection[str]) -> None:
        wanted = {id(p): p for n, p in self._model.named_parameters(remove_duplicate=False)
                  if n in names and isinstance(p, DTensor)}  # fmt: skip
        found: dict[int, Parameter] = {}
        for key, parameter in wanted.items():
            full = cast(DTensor, parameter.detach()).full_tensor()
            if self._ranks.first:
                found[key] = Parameter(full.cpu(), requires_grad=False)
        for module in self._model.modules():
            for name, value in module._parameters.items():
                if id(value) in found:
                    module._parameters[name] = found[id(value)]


def _gathered_bytes(model: MultimodalModel, units: Sequence[nn.Module]) -> int:
    """The root with its gradients, one layer with its own, and the next layer, which is gathered meanwhile."""
    sizes = [bytes_of(unit.parameters()) for unit in units]
    inside = {id(p) for unit in units for p in unit.parameters()}
    root = bytes_of(p for p in model.backbone.parameters() if id(p) not in inside)
    return 2 * root + 3 * max(sizes, default=0)


def _policy(unit: nn.Module, device: torch.device, *, half: bool) -> MixedPrecisionPolicy:
    """In which type a layer is gathered."""
    # On processors autocast leaves layer norms alone, which take no weights in bf16 beside states in fp32.
    if not half or (device.type == "cpu" and any(isinstance(module, nn.LayerNorm) for module in unit.modules())):
        return MixedPrecisionPolicy()
    # Under autocast a copy in bf16 of every weight would live until the backward pass.
    return MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)


def _divided(model: nn.Module) -> Iterator[FSDPModule]:
    return (module for module in model.modules() if isinstance(module, FSDPModule))


def _rows_of(value: DTensor, ranks: Ranks) -> Rows:
    """torch gives every process as many rows, the last ones fewer or none."""
    each = -(-len(value) // ranks.world_size)
    start = min(len(value), ranks.rank * each)
    return Rows(start, start + len(value.to_local()), tuple(value.shape))

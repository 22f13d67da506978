"""AdamW or Adafactor over the parts that learn, and the learning rate over a stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from sensorium.model.learning import Learn
from sensorium.model.learning_rows import learning_size
from sensorium.training.config import OptimiserName, ScheduleConfig

Groups = list[tuple[Learn, list[tuple[str, Parameter]]]]


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that learn alike."""

    learn: Learn
    matrices: bool
    parameters: list[Parameter]

    @property
    def weight_decay(self) -> float:
        """Vectors never decay."""
        return self.learn.weight_decay if self.matrices else 0.0

    def to_json(self) -> dict[str, Any]:
        """A row of the table that is shown before step one."""
        return {
            "part": self.learn.part,
            "which": self.learn.which,
            "kind": "matrices" if self.matrices else "vectors",
            "parameters": sum(learning_size(p) for p in self.parameters),
            "lr": self.learn.lr,
            "weight_decay": self.weight_decay,
        }


def group_parameters(groups: Groups) -> list[Group]:
    """Of each entry of `learns` the matrices, then the vectors."""
    made = [Group(learn, matrices, [p for _, p in pairs if (p.ndim > 1) == matrices])
            for learn, pairs in groups for matrices in (True, False)]  # fmt: skip
    return [group for group in made if group.parameters]


def build_optimiser(
    groups: Groups, betas: tuple[float, float], kind: OptimiserName = "adamw", epsilon: float = 1e-8
) -> torch.optim.Optimizer:
    """One parameter group for each of `group_parameters`."""
    made: list[dict[str, object]] = [
        {"params": group.parameters, "lr": group.learn.lr, "peak": group.learn.lr, "weight_decay": group.weight_decay}
        for group in group_parameters(groups)
    ]
    if kind == "adafactor":
        return torch.optim.Adafactor(made, foreach=False)  # pyright: ignore[reportArgumentType]
    return torch.optim.AdamW(made, betas=betas, eps=epsilon, fused=True)  # pyright: ignore[reportArgumentType]


def norm_of(parameters: Sequence[Parameter]) -> float:
    """Of all their gradients together."""
    return float(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))


def step_with(
    optimiser: torch.optim.Optimizer, parameters: Sequence[Parameter], *, count: float, clip_norm: float,
    norm_of: Callable[[Sequence[Parameter]], float] = norm_of,
) -> float:  # fmt: skip
    """Divide gradients by the number of targets, clip their norm, and step, unless the norm is not finite.

    AdamW's fused kernel divides while it reads: the gradients are read twice in all, for their norm and for the step.

    Args:
        norm_of: what tells the norm, where other processes hold some of the gradients.

    Returns:
        The norm before clipping.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = norm_of(parameters) / max(1, count)
    if not math.isfinite(norm):
        return norm
    divisor = max(1, count) / min(1.0, clip_norm / (norm + 1e-6))
    if optimiser.defaults.get("fused") and grads:
        # What a GradScaler sets for the same purpose.
        optimiser.grad_scale = torch.full((), divisor, device=grads[0].device)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        for grad in grads:
            grad.div_(divisor)
    optimiser.step()
    return norm


def rate(schedule: ScheduleConfig, step: int, steps: int) -> float:
    """Factor on the peak learning rate for the step that is about to run (from 0)."""
    warmup = schedule.warmup_steps or math.ceil(schedule.warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.shape == "constant":
        return 1.0
    if schedule.every is not None:
        return schedule.final_ratio ** ((step - warmup) // schedule.every)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    if schedule.shape == "geometric":
        return schedule.final_ratio**done
    left = 1 - done if schedule.shape == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return schedule.final_ratio + (1 - schedule.final_ratio) * left


def optimiser_tensors(
    optimiser: torch.optim.Optimizer, names: dict[int, str]
) -> dict[str, Tensor]:
    """The optimiser's state by parameter name, for a safetensors file."""
    tensors: dict[str, Tensor] = {}
    for parameter, state in optimiser.state.items():
        for key, value in state.items():
            tensors[f"{names[id(parameter)]}|{key}"] = value.detach().cpu().clone()
    return tensors


def restore_optimiser(
    optimiser: torch.optim.Optimizer, parameters: dict[str, Parameter], tensors: Mapping[str, Tensor],
    held: Callable[[str, str], Tensor],
) -> None:  # fmt: skip
    """Put saved state back.

    Args:
        held: what is held here of a saved tensor, by its name and its parameter's.
    """
    for name in tensors:
        parameter_name, _, key = name.rpartition("|")
        parameter = parameters[parameter_name]
        value = tensors[name] if key == "step" else held(name, parameter_name)
        # AdamW's fused kernels count where the parameter is.
        where = "cpu" if key == "step" and not optimiser.defaults.get("fused") else parameter.device
        optimiser.state[parameter][key] = value.to(where)

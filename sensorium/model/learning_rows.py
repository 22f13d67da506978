"""Matrices of which some rows learn: the gradient of all others is set to zero.

AdamW then leaves those rows as they are, bit for bit, as long as it does not decay them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

ROWS, HOOK = "sensorium_rows", "sensorium_hook"
"""Attributes of a parameter, so that they go where it goes."""


def set_rows(parameter: Parameter, rows: tuple[int, ...] | None) -> None:
    """Let only these rows of a matrix learn; None: all of them."""
    handle: RemovableHandle | None = getattr(parameter, HOOK, None)
    if handle is not None:
        handle.remove()
        delattr(parameter, HOOK)
        delattr(parameter, ROWS)
    if rows is None:
        return

    def mask(gradient: Tensor) -> Tensor:
        kept = gradient.new_zeros(len(gradient), 1)
        kept[list(rows)] = 1
        return gradient * kept

    setattr(parameter, ROWS, rows)
    setattr(parameter, HOOK, parameter.register_hook(mask))


def learning_size(parameter: Parameter) -> int:
    """How many of a parameter's numbers learn."""
    if not parameter.requires_grad:
        return 0
    rows: tuple[int, ...] | None = getattr(parameter, ROWS, None)
    return parameter.numel() if rows is None else len(set(rows)) * parameter.shape[1]


@torch.no_grad()
def keep_length(parameter: Tensor, rows: Sequence[int]) -> None:
    """Make rows of a matrix that learns as long as its other rows are on average (FROMAGe, GILL)."""
    if not parameter.requires_grad:
        return
    lengths = parameter.norm(dim=1)
    chosen = torch.zeros_like(lengths, dtype=torch.bool)
    chosen[list(rows)] = True
    parameter[chosen] *= (lengths[~chosen].mean() / lengths[chosen])[:, None]

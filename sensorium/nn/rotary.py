"""Rotary positions (arXiv:2104.09864), in halves as transformers has them; for maps, too.

Shape legend: N patches laid end to end, E width of a head, F frequencies of one axis.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sensorium.core.batch import Grid


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of numbers, of which one lies in the first half of the last dimension, one in
    the second."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate` with a backward pass of its own, which turns gradients back in one go; angles learn nothing."""
    return _Turned.apply(x, cos, sin)  # pyright: ignore[reportReturnType]


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = sin.chunk(2, dim=-1)
        ctx.save_for_backward(cos, torch.cat((second, -first), dim=-1))
        return _turn(x, cos, torch.cat((-first, second), dim=-1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        return _turn(grads[0], *ctx.saved_tensors), None, None


def _turn(x: Tensor, cos: Tensor, across: Tensor) -> Tensor:
    """x cos, and of each number's partner the share `across`."""
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, dims=-1), across)


def map_places(grids: tuple[Grid, ...], device: torch.device) -> Tensor:
    """Row and column of each patch in its own picture, (2, N), in reading order."""
    found: list[Tensor] = []
    for grid in grids:
        place_N = torch.arange(grid.h * grid.w, device=device)
        found.append(torch.stack([place_N // grid.w, place_N % grid.w]))
    return torch.cat(found, dim=1)


def map_angles(places_2N: Tensor, head_dim: int, theta: float) -> Tensor:
    """Angles for `rotate`, half of a head's pairs by the row, half by the column: (N, E).

    Args:
        theta: the base; a row's n-th pair turns by row * theta ** (-4n / E).
    """
    step_F = torch.arange(0, head_dim // 2, 2, device=places_2N.device).float() / (head_dim // 2)
    angles_2NF = places_2N[..., None].float() / theta**step_F
    return torch.cat([angles_2NF[0], angles_2NF[1]] * 2, dim=-1)

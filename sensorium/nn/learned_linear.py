"""Linear layers that learn on a CPU, with oneDNN's products of their weights as they lie (`nn/onednn.py`).

The states forward and their gradients back are its; the weights' own gradients stay with MKL, which is as fast there.

Shape legend: N rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sensorium.nn.onednn import CopiedPlain, can_multiply, is_plain, plain_linears, product

SMALLEST = 1 << 16
"""Weights of a layer."""


def learned_linears(modules: Iterable[nn.Module]) -> list[nn.Linear]:
    """Those that can: plain, in fp32 on a CPU, with a weight that learns and is no table of words at the same time."""
    return [layer for layer in plain_linears(modules) if _fits(layer.weight)]


def _fits(weight: Tensor) -> bool:
    return is_plain(weight) and weight.requires_grad and weight.numel() >= SMALLEST


@contextmanager
def multiplied(layers: Iterable[nn.Linear]) -> Iterator[None]:
    """Let these layers multiply so while the block lasts."""
    chosen = list(layers)
    for layer in chosen:
        layer.__class__ = LearnedLinear
    try:
        yield
    finally:
        for layer in chosen:
            layer.__class__ = nn.Linear


class LearnedLinear(CopiedPlain):
    """An `nn.Linear` inside `multiplied`."""

    def forward(self, input: Tensor) -> Tensor:
        if not can_multiply(input) or input.shape[-1] != self.in_features or not _fits(self.weight):
            return super().forward(input)
        out: Any = _Product.apply(input, self.weight, self.bias)
        return out


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_OI)
        out_NO = product(x.flatten(0, -2), weight_OI, bias_O)
        return out_NO.unflatten(0, x.shape[:-1]) if x.dim() != 2 else out_NO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight_OI = ctx.saved_tensors
        grad_NO = grads[0].flatten(0, -2)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            product(grad_NO, weight_OI.t()).view(x.shape) if wants_x else None,
            grad_NO.t() @ x.flatten(0, -2) if wants_weight else None,
            grad_NO.sum(0) if wants_bias else None,
        )

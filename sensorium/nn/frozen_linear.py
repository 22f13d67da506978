"""Frozen linear layers on a CPU: their weights laid out once for oneDNN, whose products torch has but does not use in fp32.

On one core of an AMD EPYC (Zen 4 by its family and model, 25 and 17, with AVX2 alone), products of 2,048 rows with weights of 192 to 1,536
rows and columns run at 62 to 75 GFLOP/s so and at 56 to 70 by MKL, 1.05 to 1.18 times as fast (`benchmarks/product_speed.py`). Weights
that learn would have to be laid out at every step; theirs are multiplied as they lie where that is faster, too (`nn/learned_linear.py`).

Shape legend: N rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sensorium.nn.onednn import (
    CopiedPlain,
    can_multiply,
    is_plain,
    laid_out_for,
    plain_linears,
    product,
)

SMALLEST = 1 << 16
"""Weights of a layer."""
REBUILDS = 2
"""Layouts of one layer, at most, behind the first: weights that are written to at every step are better left alone."""
ROWS_TOLD = 1024
"""What oneDNN is told to expect. Always the same, so that a run that resumes with another first batch gets the same layout."""


def frozen_linears(modules: Iterable[nn.Module]) -> list[nn.Linear]:
    """Those that can be laid out: frozen, plain, in fp32 on a CPU, and not a table of words at the same time."""
    return [layer for layer in plain_linears(modules) if _plain(layer.weight) and layer.weight.numel() >= SMALLEST]


def _plain(weight: Tensor) -> bool:
    return is_plain(weight) and not weight.requires_grad


@contextmanager
def laid_out(layers: Iterable[nn.Linear]) -> Iterator[None]:
    """Let these layers use a layout of their weights while the block lasts.

    It is made when a layer first meets enough rows, and again where the weights were written to since (what is written by
    `.data` is not seen); what the layers are named and what is saved of them stays as it is.
    """
    chosen = list(layers)
    for layer in chosen:
        layer.__class__ = LaidOutLinear
        _LAYOUTS[layer] = _Layouts()
    try:
        yield
    finally:
        for layer in chosen:
            layer.__class__ = nn.Linear
            _LAYOUTS.pop(layer, None)


class LaidOutLinear(CopiedPlain):
    """An `nn.Linear` inside `laid_out`."""

    def forward(self, input: Tensor) -> Tensor:
        layouts = _LAYOUTS.get(self)
        if layouts is None or not _plain(self.weight) or not can_multiply(input) or input.shape[-1] != self.in_features or not layouts.serve(self.weight):
            return super().forward(input)
        learns = self.bias is not None and self.bias.requires_grad
        out: Any = _Product.apply(input, layouts, self.weight, None if learns else self.bias)
        return out + self.bias if learns else out


class _Layouts:
    """The weights of one layer, laid out for its products forward and back."""

    def __init__(self) -> None:
        self._state: tuple[int, int, int] | None = None
        self._changes = -1
        self._made: dict[bool, Tensor] = {}

    def serve(self, weight_OI: Tensor) -> bool:
        """Take these weights, if they are not those of before; False: they change too often."""
        state = (id(weight_OI), weight_OI.data_ptr(), weight_OI._version)
        if state != self._state:
            self._state = state
            self._changes += 1
            self._made.clear()
        return self._changes <= REBUILDS

    def product(self, x: Tensor, weight_OI: Tensor, bias: Tensor | None, *, back: bool) -> Tensor:
        """(..., I) -> (..., O), or (..., O) -> (..., I) back."""
        self.serve(weight_OI)
        if back not in self._made:
            weight = weight_OI.detach()
            rows = weight.t().contiguous() if back else weight
            self._made[back] = laid_out_for(rows, ROWS_TOLD)
        x_NI = x.reshape(-1, x.shape[-1]).contiguous()
        out = product(x_NI, self._made[back], bias)
        return out.unflatten(0, x.shape[:-1]) if x.dim() != 2 else out


_LAYOUTS: WeakKeyDictionary[nn.Module, _Layouts] = WeakKeyDictionary()
"""Beside the layers, not in them: what copies or saves a layer must not meet tensors of another layout."""


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layouts: _Layouts, weight_OI: Tensor, bias: Tensor | None) -> Tensor:
        ctx.layouts, ctx.weight_OI = layouts, weight_OI
        return layouts.product(x, weight_OI, bias, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.layouts.product(grads[0], ctx.weight_OI, None, back=True), None, None, None

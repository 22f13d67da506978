"""Frozen linear layers on a CPU: their weights laid out once for oneDNN, whose products torch has but does not use in fp32.

torch multiplies fp32 matrices by MKL, which does less well on other makers' processors. On one Zen 3 core, products of 2,048
rows with weights of 192 to 1,536 rows and columns run at 62 to 75 GFLOP/s so and at 56 to 70 by MKL, 1.05 to 1.18 times as fast
(`benchmarks/product_speed.py`). Weights that learn would have to be laid out at every step, and the products that make their gradients are no
faster, so theirs stay with MKL.

Shape legend: N rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

CPU_INFO = Path("/proc/cpuinfo")
FEWEST_ROWS = 64
"""Of an input: with fewer, products take less time than calls."""
SMALLEST = 1 << 14
"""Weights of a layer."""
ROWS_TOLD = 1024
"""What oneDNN is told to expect. Always the same, so that a run that resumes with another first batch gets the same layout."""


@cache
def onednn_is_faster() -> bool:
    """Whether this is a processor on which it was measured to be. No measurement of its own: runs that resume must choose alike."""
    try:
        maker = CPU_INFO.read_text(encoding="utf-8", errors="replace").partition("vendor_id")[2].partition("\n")[0]
    except OSError:
        return False
    there = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return "AuthenticAMD" in maker and there and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def frozen_linears(modules: Iterable[nn.Module]) -> list[nn.Linear]:
    """Those that can be laid out: frozen, plain, in fp32 on a CPU, and not a table of words at the same time."""
    found = list(modules)
    tables = {id(module.weight) for module in found if isinstance(module, nn.Embedding)}
    return [
        module for module in found
        if type(module) is nn.Linear and id(module.weight) not in tables and _plain(module.weight)
        and module.weight.numel() >= SMALLEST
    ]  # fmt: skip


def _plain(weight: Tensor) -> bool:
    return (
        type(weight) is nn.Parameter and not weight.requires_grad and weight.dtype == torch.float32 and weight.device.type == "cpu"
    )


@contextmanager
def laid_out(layers: Iterable[nn.Linear]) -> Iterator[None]:
    """Let these layers use a layout of their weights while the block lasts.

    It is made when a layer first meets enough rows, and again if the weights were written to since; what the layers are named
    and what is saved of them stays as it is.
    """
    chosen = list(layers)
    for layer in chosen:
        layer.__class__ = LaidOutLinear
        _LAYOUTS[layer] = _Layouts(layer)
    try:
        yield
    finally:
        for layer in chosen:
            layer.__class__ = nn.Linear
            _LAYOUTS.pop(layer, None)


class LaidOutLinear(nn.Linear):
    """An `nn.Linear` inside `laid_out`."""

    def forward(self, input: Tensor) -> Tensor:
        layouts = _LAYOUTS.get(self)
        if layouts is None or not _plain(self.weight) or not _fits(input):
            return super().forward(input)
        learns = self.bias is not None and self.bias.requires_grad
        out: Any = _Product.apply(input, layouts, None if learns else self.bias)
        return out + self.bias if learns else out


def _fits(x: Tensor) -> bool:
    return (
        x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() >= FEWEST_ROWS * x.shape[-1]
        and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    )  # fmt: skip


class _Layouts:
    """The weights of one layer, laid out for its products forward and back."""

    def __init__(self, layer: nn.Linear) -> None:
        self._weight_OI = layer.weight
        self._state = (0, 0)
        self._made: dict[bool, Tensor] = {}

    def product(self, x: Tensor, bias: Tensor | None, *, back: bool) -> Tensor:
        """(..., I) -> (..., O), or (..., O) -> (..., I) back."""
        weight = self._weight_OI.detach()
        state = (weight.data_ptr(), weight._version)
        if state != self._state:
            self._state = state
            self._made.clear()
        if back not in self._made:
            rows = weight.t().contiguous() if back else weight
            self._made[back] = torch.ops.mkldnn._reorder_linear_weight(rows, ROWS_TOLD)
        x_NI = x.reshape(-1, x.shape[-1]).contiguous()
        out = torch.ops.mkldnn._linear_pointwise(x_NI, self._made[back], bias, "none", [], "")
        return out.unflatten(0, x.shape[:-1]) if x.dim() != 2 else out


_LAYOUTS: WeakKeyDictionary[nn.Module, _Layouts] = WeakKeyDictionary()
"""Beside the layers, not in them: what copies or saves a layer must not meet tensors of another layout."""


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layouts: _Layouts, bias: Tensor | None) -> Tensor:
        ctx.layouts = layouts
        return layouts.product(x, bias, back=False)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.layouts.product(grads[0], None, back=True), None, None


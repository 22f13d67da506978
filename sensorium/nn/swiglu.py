"""A gated feed-forward part (SwiGLU, arXiv:2002.05202) that keeps two tensors of its inner width for the backward pass, not four.

Autograd keeps the gate, its SiLU, the other half and their product, which is what the layer behind reads; at the usual sizes that is
two thirds of what a decoder layer keeps. The second and the last follow from the others by steps that cost a hundredth of the products.

Shape legend: N rows, I inner width, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sensorium.nn.learned_linear import LearnedLinear
from sensorium.nn.onednn import can_multiply, product


def gated(gate: Tensor, up: Tensor, down: nn.Module) -> Tensor:
    """down(SiLU(gate) * up), (..., I) -> (..., O)."""
    if isinstance(down, LearnedLinear) and down.bias is None and can_multiply(gate):
        return _GatedProduct.apply(gate, up, down.weight)  # pyright: ignore[reportReturnType]
    return down(_Gated.apply(gate, up))


class _Gated(torch.autograd.Function):
    """Without the layer behind, which keeps what it reads if it learns."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        gate, up = ctx.saved_tensors
        return _back(grads[0], gate, up, F.silu(gate))


class _GatedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight_OI: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up, weight_OI)
        out_NO = product(F.silu(gate).mul_(up).flatten(0, -2), weight_OI)
        return out_NO.unflatten(0, gate.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        gate, up, weight_OI = ctx.saved_tensors
        grad_NO = grads[0].flatten(0, -2)
        silu = F.silu(gate)
        wants_weight = ctx.needs_input_grad[2]
        grad_OI = grad_NO.t() @ (silu * up).flatten(0, -2) if wants_weight else None
        grad_NI = product(grad_NO, weight_OI.t()).view(gate.shape)
        return *_back(grad_NI, gate, up, silu), grad_OI


def _back(grad: Tensor, gate: Tensor, up: Tensor, silu: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up; `silu` is written over."""
    return torch.ops.aten.silu_backward(grad * up, gate), silu.mul_(grad)

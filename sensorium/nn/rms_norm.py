"""Root mean square norm (arXiv:1910.07467) with a backward pass of its own.

On a CPU torch has no kernel for it; what autograd makes of its single steps goes through the states some ten times more than this.

Shape legend: N rows, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x ** 2) + eps) * weight over the last dimension."""
    return _RMSNorm.apply(x, weight_D, eps)  # pyright: ignore[reportReturnType]


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        length_N1 = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        shrink_N1 = length_N1.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_D, shrink_N1)
        return (x * shrink_N1).mul_(weight_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight_D, shrink_N1 = ctx.saved_tensors
        grad_ND, x_ND, shrink_N1 = grads[0].flatten(0, -2), x.flatten(0, -2), shrink_N1.flatten(0, -2)
        both_ND = grad_ND * x_ND
        grad_weight = both_ND.t() @ shrink_N1[:, 0] if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None
        along_N1 = (both_ND @ weight_D)[:, None] * shrink_N1.pow(3).div_(-x.shape[-1])
        grad_x = torch.mul(grad_ND, weight_D, out=both_ND).mul_(shrink_N1).addcmul_(x_ND, along_N1)
        return grad_x.view(x.shape), grad_weight, None

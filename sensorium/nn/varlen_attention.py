"""Causal attention of samples that lie end to end on a GPU: torch's flash kernel for rows of many lengths.

One kernel goes through all samples of a batch and computes nothing between them (flash attention 2, arXiv:2307.08691).

Shape legend: N tokens, H query heads, G key heads, E width of a head, S samples.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sensorium.nn.compute_dtype import compute_dtype

HALVES = (torch.float16, torch.bfloat16)
WIDEST = 256
"""Head that the kernel takes, in multiples of eight."""


def can_varlen(x: Tensor, head_dim: int) -> bool:
    """Whether states like these may go through the kernel: half precision on a GPU that has it, and a torch that offers it."""
    return (
        x.is_cuda and compute_dtype(x) in HALVES and head_dim <= WIDEST and head_dim % 8 == 0
        and torch.cuda.get_device_capability(x.device) >= (8, 0) and _kernel() is not None
    )  # fmt: skip


def varlen_attention(q_1HNE: Tensor, k_1GNE: Tensor, v_1GNE: Tensor, bounds_S1: Tensor, longest: int, scale: float | None) -> Tensor:
    """Attention inside every sample, (1, N, H, E).

    Args:
        bounds_S1: where samples begin, and where the last one ends; 32-bit integers on the GPU.
        longest: tokens of the longest sample, at least.
    """
    kernel, dtype = _kernel(), compute_dtype(v_1GNE)
    assert kernel is not None
    q, k, v = (x[0].transpose(0, 1).to(dtype) for x in (q_1HNE, k_1GNE, v_1GNE))
    return kernel(q, k, v, bounds_S1, bounds_S1, longest, longest, scale=scale, window_size=(-1, 0))[None]


@cache
def _kernel() -> Any:
    """The public function, whose arguments are not the same in all versions; None: this torch (before 2.10) has none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    told = inspect.signature(varlen_attn).parameters
    if "window_size" not in told or "scale" not in told:
        return None
    if "enable_gqa" not in told:
        return varlen_attn
    return lambda *states, **settings: varlen_attn(*states, **settings, enable_gqa=states[0].shape[1] != states[1].shape[1])

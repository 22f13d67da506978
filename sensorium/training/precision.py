"""Which number format this machine multiplies faster in: measured, not guessed."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]
# bf16 must win clearly: it costs accuracy, and autocast has its own overhead.
MIN_GAIN = 1.5


def choose_precision(asked: str, device: torch.device) -> Precision:
    """`auto` becomes bf16 where a layer-sized product runs at least 1.5 times faster."""
    if asked == "fp32" or asked == "bf16":
        return asked  # type: ignore[return-value]
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    fp32, bf16 = (_seconds(dtype, device) for dtype in (torch.float32, torch.bfloat16))
    return "bf16" if fp32 > MIN_GAIN * bf16 else "fp32"


def _seconds(dtype: torch.dtype, device: torch.device) -> float:
    a = torch.ones(256, 512, dtype=dtype, device=device)
    b = torch.ones(512, 512, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        torch.matmul(a, b)
        best = min(best, time.perf_counter() - start)
    return best


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which forward passes run."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)

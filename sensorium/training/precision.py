"""Which number format a stage computes in: what it asks for, where this machine multiplies fast in it; measured, not guessed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from sensorium.training.config import StageConfig
from sensorium.training.distributed.ranks import Ranks

Precision = Literal["fp32", "bf16"]
# bf16 must win clearly: it costs accuracy, and autocast has its own overhead.
MIN_GAIN = 1.5


@dataclass(frozen=True, slots=True)
class Chosen:
    """A number format, and why it is this one."""

    precision: Precision
    why: str
    asked: Precision | None = None
    """What was asked for in vain; None: nothing."""

    def warning(self, stage: str) -> str | None:
        """That a stage does not get what it asked for."""
        if self.asked is None:
            return None
        return (f"stage {stage} computes in {self.precision}, not in {self.asked} as asked: {self.why}; "
                "keep_precision: true, set before the stage begins, insists")  # fmt: skip


def choose_precision(asked: str, device: torch.device, *, insists: bool = False, fast: Chosen | None = None) -> Chosen:
    """`auto` becomes bf16 where it is fast, else fp32; so does bf16 on a processor, unless somebody insists.

    Args:
        fast: what is fast here, where it is known; None: it is measured, if it matters.
    """
    if not _is_open(asked, device, insists):
        return Chosen("bf16" if asked == "bf16" else "fp32", "as asked")
    found = fast or fast_precision(device)
    if asked == "bf16" and found.precision == "fp32":
        return Chosen("fp32", found.why, asked="bf16")
    return Chosen(found.precision, f"{'auto' if asked == 'auto' else 'as asked'}; {found.why}")


def _is_open(asked: str, device: torch.device, insists: bool) -> bool:
    """Whether the machine has a say."""
    return asked == "auto" or (asked == "bf16" and device.type == "cpu" and not insists)


def stage_precision(stage: StageConfig, fast: Chosen | None, device: torch.device) -> Chosen:
    """The stage's number format; where that depends on what is fast, it takes the run's answer, measured once."""
    return choose_precision(stage.precision, device, insists=stage.keep_precision, fast=fast)


def run_precision(stages: Sequence[StageConfig], device: torch.device, ranks: Ranks) -> Chosen:
    """What is fast for all stages of a run; where none of them depends on it, what they ask for."""
    if any(_is_open(stage.precision, device, stage.keep_precision) for stage in stages):
        found = fast_precision(device)
        # Measurements differ: all take the first one's.
        precision, why = ranks.gather([found.precision, found.why])[0]
        return Chosen(precision, why)
    return Chosen("bf16" if any(stage.precision == "bf16" for stage in stages) else "fp32", "as asked")


def fast_precision(device: torch.device) -> Chosen:
    """bf16 where a layer-sized product runs at least 1.5 times faster in it, or the GPU has it; else fp32."""
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported()
        return Chosen("bf16" if has else "fp32", f"this GPU has {'' if has else 'no '}bf16")
    fp32, bf16 = (_seconds(dtype, device) for dtype in (torch.float32, torch.bfloat16))
    why = f"a layer-sized product takes {fp32 * 1e3:.2f} ms in fp32 and {bf16 * 1e3:.2f} ms in bf16 here"
    return Chosen("bf16" if fp32 > MIN_GAIN * bf16 else "fp32", why)


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

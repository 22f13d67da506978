"""Matrix products of fp32 on a CPU by oneDNN, which torch has but uses for half precision alone.

torch multiplies fp32 matrices by MKL, which does less well on other makers' processors. On one core of an AMD EPYC with AVX-512, oneDNN
makes products of 2,048 rows 1.09 to 1.13 times as fast (`benchmarks/product_speed.py`, layers that learn), with weights as they lie. What it
makes of the same shapes is the same to the last bit, so that a run that resumes goes on as it would have.

Shape legend: N rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CPU_INFO = Path("/proc/cpuinfo")
FEWEST_ROWS = 256
"""With fewer, gains were within what measuring wavers by."""


@cache
def onednn_is_faster() -> bool:
    """Whether this is a processor of the maker on some of whose (see above; one thread) it was measured to be. It measures nothing itself: runs that
    resume must choose alike."""
    return _has("vendor_id", "AuthenticAMD") and torch.backends.mkl.is_available() and has_onednn()


@cache
def reads_weights_as_they_lie() -> bool:
    """Whether it is faster with weights that were not laid out for it, too: measured with AVX-512."""
    return onednn_is_faster() and _has("flags", "avx512f")


def has_onednn() -> bool:
    """Whether this build of torch has the products, and what lays out their weights."""
    names = ("_linear_pointwise", "_reorder_linear_weight")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


def _has(field: str, word: str) -> bool:
    """Whether a line of the processor's description, the first of that name, has a word; False where there is none."""
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return word in text.partition(f"\n{field}")[2].partition("\n")[0].replace(":", " ").split()


def plain_linears(modules: Iterable[nn.Module]) -> list[nn.Linear]:
    """Linear layers that are nothing more, in fp32 on a CPU, whose weight is no table of words at the same time."""
    found = list(modules)
    tables = {id(module.weight) for module in found if isinstance(module, nn.Embedding)}
    return [module for module in found if type(module) is nn.Linear and id(module.weight) not in tables and is_plain(module.weight)]


def is_plain(weight: Tensor) -> bool:
    """A parameter of its own in fp32 on a CPU."""
    return type(weight) is nn.Parameter and weight.dtype == torch.float32 and weight.device.type == "cpu"


class CopiedPlain(nn.Linear):
    """A layer that for a while multiplies otherwise, and whose copies do not."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        make, (_, *rest), *state = super().__reduce_ex__(protocol)
        return (make, (nn.Linear, *rest), *state)


def can_multiply(x: Tensor) -> bool:
    """Whether rows are many, and of a kind that is served."""
    return (
        not torch.compiler.is_compiling() and x.dtype == torch.float32 and x.device.type == "cpu"
        and x.numel() >= FEWEST_ROWS * x.shape[-1] and not torch.is_autocast_enabled("cpu")
    )  # fmt: skip


def product(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x weight^T + bias, (N, O); the weight may be laid out, and both may be transposed views."""
    return torch.ops.mkldnn._linear_pointwise(x_NI, weight_OI, bias_O, "none", [], "")


def laid_out_for(weight_OI: Tensor, rows: int) -> Tensor:
    """A copy of a weight as oneDNN wants it for about so many rows."""
    return torch.ops.mkldnn._reorder_linear_weight(weight_OI, rows)

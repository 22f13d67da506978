"""Do all ranks hold the same weights?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.training.distributed.ranks import Ranks

NAMED = 5
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_equal(ranks: Ranks, tensors: Mapping[str, Tensor], where: str) -> None:
    """Compare the weights of all ranks, bit for bit.

    Raises:
        WeightsError: on every rank, with the names of what differs.
    """
    if ranks.world_size == 1:
        return
    sums = {name: _bit_sum(value) for name, value in tensors.items()}
    whole = hashlib.sha256(repr(sorted(sums.items())).encode()).hexdigest()
    if len(set(ranks.gather(whole))) == 1:
        return
    first, *others = ranks.gather(sums)
    for rank, other in enumerate(others, 1):
        names = sorted(n for n in first.keys() | other.keys() if first.get(n) != other.get(n))
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            raise WeightsError(
                f"process {rank} holds other weights than process 0 in {', '.join(names[:NAMED])}{more}",
                expected="the same weights everywhere", where=where,
                fix="give all processes the same recipe, files and versions of torch",
            )  # fmt: skip


def _bit_sum(value: Tensor) -> int:
    """A sum over bit patterns: exact, quick where the tensor is, and changed by any one weight."""
    flat = value.detach().contiguous().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    return int(flat.view(_BITS[flat.element_size()]).sum(dtype=torch.int64))

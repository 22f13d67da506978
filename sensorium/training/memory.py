"""Memory: what a stage will need, measured on a real batch, and what there is.

A forward pass tells autograd which tensors the backward pass will read. They are counted
here as they are handed over and let go at once, so that measuring needs little memory of its
own even where training would not fit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from sensorium.training.distributed.place import place

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


GAPS_CPU = 1.3
"""What a processor's memory takes for tensors of mixed sizes that come and go, as a share of them: so much brings the plan near the peak
(`tests/endtoend/test_memory_estimate.py`). That the heap's gaps are why is a guess."""


class SavedTensors:
    """Counts, while the block lasts, the bytes that forward passes keep for backward.

    No backward pass can follow: nothing is really kept.
    """

    def __init__(self, model: nn.Module) -> None:
        self.total = 0
        self.largest = 0
        # Weights are there anyway.
        self._known = {_pointer(t) for t in (*model.parameters(), *model.buffers()) if not hasattr(t, "to_local")}
        self._alive: dict[int, StorageWeakRef] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._count, _refuse)

    def __enter__(self) -> SavedTensors:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    def _count(self, tensor: Tensor) -> None:
        # A divided model's are gathered for each layer anew, and freed behind it.
        if isinstance(tensor if tensor._base is None else tensor._base, nn.Parameter):
            return
        pointer = _pointer(tensor)
        before = self._alive.get(pointer)
        # One storage is kept by several operations; once it is gone, another one may lie in
        # its place.
        if pointer in self._known or (before is not None and not before.expired()):
            return
        storage = tensor.untyped_storage()
        self._alive[pointer] = StorageWeakRef(storage)
        self.total += storage.nbytes()
        self.largest = max(self.largest, storage.nbytes())


def _pointer(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _refuse(nothing: None) -> Tensor:
    raise RuntimeError("a backward pass inside SavedTensors, which keeps nothing for it")


def state_bytes(model: nn.Module, learning: int, *, moments: int = 2) -> int:
    """What a stage holds whatever its batches are: the weights in their own formats, a gradient and the optimiser's
    `moments` (Adam: two; Adafactor: next to none) in fp32 for each of the `learning` parameters."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return weights + learning * 4 * (1 + moments)


def activation_bytes(saved: SavedTensors, device: torch.device) -> int:
    """What a step needs on top, about: what autograd keeps of one batch, as measured, and twice the largest such
    tensor for what both passes hold in passing, such as logits and their gradient. A processor's heap has gaps beside.

    Not in it: batches with longer rows than the measured one, the masks of dropout, pictures waiting in the
    loader, and torch itself (0.3 to 0.5 GB).
    """
    return round((saved.total + 2 * saved.largest) * (GAPS_CPU if device.type == "cpu" else 1.0))


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a device, in bytes."""

    total: int
    free: int
    """What a program could still get; what it holds already is not in it."""


def memory_of(device: torch.device) -> Memory | None:
    """The memory that models on this device live in, on a CPU this process's share of it; None where the system does
    not say."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        # Torch keeps what it freed, and uses it again.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return Memory(total, free + kept)
    host = _host_memory()
    limit = _group_memory()
    if host is None:
        return None
    both = [host] if limit is None else [host, limit]
    shares = place().local_world_size
    return Memory(min(m.total for m in both) // shares, min(m.free for m in both) // shares)


def _host_memory() -> Memory | None:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    except (AttributeError, ValueError, OSError):
        return None
    # Linux counts only what is unused as free; the kernel knows what it could give up besides.
    available = _fields(MEMINFO).get("MemAvailable:")
    return Memory(total, free if available is None else available * 1024)


def _group_memory() -> Memory | None:
    """What a container or a batch system allows (cgroup v2), where it does."""
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    cached = _fields(CGROUP / "memory.stat").get("file", 0)
    return Memory(limit, max(0, limit - used + cached))


def _fields(path: Path) -> dict[str, int]:
    """`name number` lines; nothing where there is no such file."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}

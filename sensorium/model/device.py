"""Which device a model runs on, and how a batch gets there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sensorium.core.batch import Batch, Features, MediaBatch
from sensorium.core.errors import ConfigError
from sensorium.core.naming import nearest
from sensorium.core.quiet import GPU_CALLS

KNOWN = ("auto", "cpu", "cuda", "mps")


def choose_device(asked: str = "auto") -> torch.device:
    """The device of a name.

    Args:
        asked: `auto` (an NVIDIA or AMD GPU, else Apple's, else the processor), or a name
            that torch knows: `cpu`, `cuda`, `cuda:1`, `mps`, ...

    Raises:
        ConfigError: torch knows no such device, or this machine has none.
    """
    usable = usable_devices()
    if asked == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if name in usable))
    try:
        device = torch.device(asked)
    except RuntimeError:
        near = nearest(asked, KNOWN)
        raise ConfigError(
            f"unknown device {asked!r}",
            expected="auto, cpu, cuda, cuda:1, mps or another name that torch knows",
            fix=f"did you mean {near!r}?" if near else "leave it out: auto finds the best",
        ) from None
    count = usable.get(device.type, 0)
    if (device.index or 0) >= count:
        there = [f"{n} (0 to {c - 1})" if c > 1 else n for n, c in usable.items()]
        raise ConfigError(
            f"device {asked!r} is not available to torch here",
            expected=f"auto, {', '.join(there)}",
            fix="choose one of these; a GPU also needs a build of torch made for it and its driver",
        )
    return device


def usable_devices() -> dict[str, int]:
    """Kinds of device that work on this machine, and how many there are of each."""
    found = {"cpu": 1}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.device_count()
    if torch.backends.mps.is_available():
        found["mps"] = 1
    # What torch was built for beside these two, such as Intel's xpu.
    other = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if other is not None and other.type not in found:
        found[other.type] = torch.accelerator.device_count()
    return found


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its tensors on a device; those that are there are not copied."""
    return _moved(batch, lambda x: x.to(device))


def media_to_device(
    media: Mapping[str, MediaBatch], device: torch.device
) -> dict[str, MediaBatch]:
    """Pixels and features of every kind on a device."""
    return _media_moved(media, lambda x: x.to(device))


def can_send_ahead(device: torch.device) -> bool:
    """Whether copies to the device can go on while it computes."""
    return device.type == "cuda" and torch.cuda.is_available()


def sent_ahead(batch: Batch, device: torch.device) -> Batch:
    """`to_device` by way of page-locked memory: nobody waits for the copies, which arrive in front of what is begun later."""
    with GPU_CALLS, torch.cuda.device(device):
        return _moved(batch, lambda x: _pinned(x).to(device, non_blocking=True))


def _pinned(x: Tensor) -> Tensor:
    return x if x.is_cuda or x.is_pinned() else x.pin_memory()


def _moved(batch: Batch, move: Callable[[Tensor], Tensor]) -> Batch:
    return replace(
        batch,
        input_ids_BT=move(batch.input_ids_BT),
        learn_BT=move(batch.learn_BT),
        segments_BT=move(batch.segments_BT),
        positions_BT=move(batch.positions_BT),
        branches_BT=move(batch.branches_BT),
        places_3BT=None if batch.places_3BT is None else move(batch.places_3BT),
        loss_weights_BT=None if batch.loss_weights_BT is None else move(batch.loss_weights_BT),
        media_index_BT=move(batch.media_index_BT),
        slots={kind: move(slots_BT) for kind, slots_BT in batch.slots.items()},
        media=_media_moved(batch.media, move),
    )


def _media_moved(media: Mapping[str, MediaBatch], move: Callable[[Tensor], Tensor]) -> dict[str, MediaBatch]:
    moved: dict[str, MediaBatch] = {}
    for kind, one in media.items():
        features = one.features
        if features is not None:
            features = Features(move(features.values_ND), features.grids)
        details = None if one.details_NCHW is None else move(one.details_NCHW)
        moved[kind] = replace(one, pixels_NCHW=move(one.pixels_NCHW), features=features, details_NCHW=details)
    return moved

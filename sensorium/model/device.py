"""Which device a model runs on, and how a batch gets there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from sensorium.core.batch import Batch, Features, MediaBatch
from sensorium.core.errors import ConfigError
from sensorium.core.naming import nearest

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
    return replace(
        batch,
        input_ids_BT=batch.input_ids_BT.to(device),
        learn_BT=batch.learn_BT.to(device),
        segments_BT=batch.segments_BT.to(device),
        positions_BT=batch.positions_BT.to(device),
        branches_BT=batch.branches_BT.to(device),
        places_3BT=None if batch.places_3BT is None else batch.places_3BT.to(device),
        loss_weights_BT=None if batch.loss_weights_BT is None else batch.loss_weights_BT.to(device),
        media_index_BT=batch.media_index_BT.to(device),
        slots={kind: slots_BT.to(device) for kind, slots_BT in batch.slots.items()},
        media=media_to_device(batch.media, device),
    )


def media_to_device(
    media: Mapping[str, MediaBatch], device: torch.device
) -> dict[str, MediaBatch]:
    """Pixels and features of every kind on a device."""
    moved: dict[str, MediaBatch] = {}
    for kind, one in media.items():
        features = one.features
        if features is not None:
            features = Features(features.values_ND.to(device), features.grids)
        details = None if one.details_NCHW is None else one.details_NCHW.to(device)
        pixels = one.pixels_NCHW.to(device)
        moved[kind] = replace(one, pixels_NCHW=pixels, features=features, details_NCHW=details)
    return moved

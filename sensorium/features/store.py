"""The store as the Processor and the model see it: `find` before the encoder, `keep` behind it.

Shape legend: N features laid end to end, D width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sensorium.core.atomic import write_json
from sensorium.core.batch import Features, Kept, MediaBatch
from sensorium.features.fingerprint import fingerprint
from sensorium.features.room import PREFIX, Room, sweep
from sensorium.features.tower_store import TowerStore
from sensorium.features.writer import Job, Writer
from sensorium.model.kept import by_picture
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.processor import Processor

SHARDS = 16
"""The limit is at least so many shards."""
LARGEST_SHARD = 2**29
LARGEST_HALF = torch.finfo(torch.float16).max


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Where a store lies and what it may hold."""

    root: Path
    limit_gb: float = 16.0
    half: bool = False
    """Values are rounded to fp16, which halves fp32's space; on the first use, too."""
    number_format: str = "fp32"
    """In which the encoders run: `fp32` or `bf16`."""


class FeatureStore:
    """Features of the frozen encoders of one model; a `core.shelf.Shelf`."""

    def __init__(self, model: MultimodalModel, kinds: Sequence[str], options: StoreOptions) -> None:
        """Open the folders of the model's towers.

        Args:
            kinds: kinds of media whose encoder stays as it is while the store is used.

        Raises:
            OSError: the folder cannot be read or made.
        """
        self._half = options.half
        limit = int(options.limit_gb * 2**30)
        rounded = "-half" if options.half else ""
        self.towers: dict[str, TowerStore] = {}
        lanes: dict[str, TowerStore] = {}
        for kind in kinds:
            name = model.config.lane_of(kind)
            if name in lanes:
                # What one encoder makes lies together; keys tell kinds apart.
                self.towers[kind] = lanes[name]
                continue
            mark = fingerprint(model, kind, options.number_format + rounded)
            folder = options.root / f"{PREFIX}{mark}"
            folder.mkdir(parents=True, exist_ok=True)
            _describe(folder, model, kind, options)
            sweep(folder)
            self.towers[kind] = lanes[name] = TowerStore(folder, shard_bytes=min(LARGEST_SHARD, limit // SHARDS))
        self.writer = Writer(Room(options.root, limit))

    def holds(self, kind: str) -> bool:
        return kind in self.towers

    def find(self, kind: str, key: bytes) -> Kept | None:
        return self.towers[kind].find(key)

    def keep(self, kind: str, media: MediaBatch, features: Features) -> Features:
        was = features.values_ND.dtype
        values_ND = features.values_ND.detach()
        if self._half:
            # What is larger than fp16 can say becomes its largest, and not infinite.
            values_ND = values_ND.half().clamp(-LARGEST_HALF, LARGEST_HALF)
            features = Features(values_ND.to(was), features.grids)
        if not self.writer.takes(values_ND.nbytes):
            self.writer.dropped += len(media.plans)
            return features
        copied_ND, event = _copied(values_ND)
        pictures = list(by_picture(media, Features(copied_ND, features.grids)))
        self.writer.put(Job(self.towers[kind], copied_ND, was, pictures, event))
        return features

    def follow(self) -> None:
        """In a copy of this process: only look things up, those that the original keeps from now on included."""
        for tower in set(self.towers.values()):
            tower.follow()

    def close(self) -> None:
        """Write what waits and close all files."""
        self.writer.close()
        for tower in set(self.towers.values()):
            tower.close()


def _copied(values_ND: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy on the CPU that nobody changes; from a GPU it arrives when the event has passed, and nothing waits."""
    if values_ND.device.type != "cuda":
        return values_ND.cpu().clone() if values_ND.device.type == "cpu" else values_ND.cpu(), None
    there_ND = torch.empty(values_ND.shape, dtype=values_ND.dtype, pin_memory=True)
    there_ND.copy_(values_ND, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return there_ND, event


def _describe(folder: Path, model: MultimodalModel, kind: str, options: StoreOptions) -> None:
    """What the folder's entries come from, for people."""
    encoder = model.config.lane(kind).encoder
    file = folder / "tower.json"
    if not file.exists() and os.access(folder, os.W_OK):
        about = {"encoder": encoder.kind, "size_px": encoder.preprocess().size_px,
                 "format": options.number_format, "half": options.half, "torch": torch.__version__}  # fmt: skip
        write_json(file, about)


@contextmanager
def used_by(model: MultimodalModel, processor: Processor, store: FeatureStore | None) -> Iterator[None]:
    """While the block lasts, the Processor looks into the store and the model fills it; then it is closed."""
    if store is None:
        yield
        return
    model.shelf = processor.shelf = store
    try:
        yield
    finally:
        model.shelf = processor.shelf = None
        store.close()


def storable(model: MultimodalModel, *, trains: bool = False) -> tuple[list[str], list[str]]:
    """Kinds of media whose features can be kept, and why those of others cannot.

    Args:
        trains: parameters that may learn do.
    """
    if not hasattr(os, "preadv"):
        return [], ["this system cannot read at a place of a file (preadv)"]
    kinds: list[str] = []
    reasons: list[str] = []
    for kind, lane in model.config.lanes.items():
        if trains and any(p.requires_grad for p in model.encoders[kind].parameters()):
            reasons.append(f"encoders.{kind} learns")
        elif lane.detail is not None:
            reasons.append(f"the lane {kind} has a second encoder, which needs every picture's pixels")
        elif lane.places is not None and lane.places.glance:
            reasons.append(f"the lane {kind} looks at each thing once more (places.glance), which needs every picture's pixels")
        else:
            kinds += [one for one, name in model.config.takes.items() if name == kind]
    return kinds, reasons

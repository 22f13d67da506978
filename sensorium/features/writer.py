"""The thread that writes behind a running model: what it cannot keep up with is dropped, not waited for."""

from __future__ import annotations

import atexit
import queue
import sys
import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sensorium.core.batch import Features, Kept
from sensorium.core.quiet import GPU_CALLS
from sensorium.features.record import raw_bytes, write_head
from sensorium.features.room import Room
from sensorium.features.tower_store import TowerStore

QUEUE_BYTES = 2**28
"""Most that may wait."""
CLOSE_S = 120.0


@dataclass(frozen=True, slots=True)
class Job:
    """Features of a batch, copied to the CPU, and which rows of them are of which picture."""

    store: TowerStore
    values_ND: Tensor
    was: torch.dtype
    pictures: list[tuple[Kept, Features]]
    """Entries with features whose values are rows of `values_ND`."""
    copied: Any
    """CUDA's event behind the copy; None on a CPU."""

    @property
    def size_bytes(self) -> int:
        return self.values_ND.nbytes


class Writer:
    """Appends to stores, one record after another."""

    def __init__(self, room: Room) -> None:
        self.written = 0
        self.dropped = 0
        self.stopped = ""
        """Why nothing is written any more."""
        self._room = room
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._said: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="feature-store", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def takes(self, size_bytes: int) -> bool:
        """Whether a batch of this size would be queued now; one that would not counts as dropped."""
        with self._lock:
            fits = self._waiting == 0 or self._waiting + size_bytes <= QUEUE_BYTES
        return fits and not self.stopped and not self._room.full

    def put(self, job: Job) -> None:
        """Queue a batch."""
        with self._lock:
            self._waiting += job.size_bytes
        self._jobs.put(job)

    def close(self) -> None:
        """Write what waits, two minutes at most, and end."""
        atexit.unregister(self.close)
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join(CLOSE_S)
        # A model may still hand over what nobody would write, or free.
        self.stopped = self.stopped or "closed"

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not self.stopped:
                if job.copied is not None:
                    with GPU_CALLS:
                        job.copied.synchronize()
                for kept, features in job.pictures:
                    self._write(job, kept, features)
            with self._lock:
                self._waiting -= job.size_bytes

    def _write(self, job: Job, kept: Kept, features: Features) -> None:
        if kept.key in job.store or self.stopped:
            return
        head, values = write_head(kept, features, job.was), raw_bytes(features.values_ND)
        try:
            if not self._room.make(len(head) + values.nbytes, job.store.folder, job.store.lookups):
                self.dropped += 1
                self._say(f"the feature store {self._room.root} is full ({self._room.limit_bytes / 2**30:.1f} GiB, or "
                          "the disk is): pictures beyond that are encoded anew each time; raise feature_store_gb or "
                          "empty it with `sensorium cache --clear`")  # fmt: skip
                return
            job.store.append(kept.key, head, values)
            self.written += 1
        except OSError as error:
            self.stopped = str(error)
            self._say(f"the feature store {self._room.root} cannot be written ({error}): it is only read now")

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            print(text, file=sys.stderr)

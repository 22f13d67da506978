"""The entries of one tower: a folder of shards, those of other processes included."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import threading
import time
from pathlib import Path

from sensorium.core.batch import Kept
from sensorium.features.record import read_record
from sensorium.features.shard import INDEX, Place, ShardReader, ShardWriter, trim

LOOK_AGAIN_S = 5.0
"""How often a miss looks for what other processes have written."""
FOLLOW_S = 0.5
"""The same of a copy of the process that writes."""
TOUCH_S = 60.0
"""How often a shard that is read is marked as used."""


class TowerStore:
    """Finds records by key, and appends to a shard of its own."""

    def __init__(self, folder: Path, *, shard_bytes: int) -> None:
        """Open what is there.

        Args:
            shard_bytes: size beyond which a new shard is begun.
        """
        self.folder = folder
        self.lookups = 0
        self.hits = 0
        self.damaged = 0
        self._shard_bytes = shard_bytes
        self._lock = threading.Lock()
        self._places: dict[bytes, list[tuple[ShardReader, Place]]] = {}
        self._readers: dict[Path, ShardReader] = {}
        self._own: set[Path] = set()
        self._writer: ShardWriter | None = None
        self._touched: dict[Path, float] = {}
        for index in sorted(folder.glob(f"*{INDEX}")):
            trim(index)
        self._looked = time.monotonic()
        self._look_every_s = LOOK_AGAIN_S
        self._look()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def find(self, key: bytes) -> Kept | None:
        """A whole and undamaged record; damaged ones are forgotten, so that they are made anew."""
        self.lookups += 1
        if key not in self._places and time.monotonic() - self._looked > self._look_every_s:
            self._looked = time.monotonic()
            self._look()
        while True:
            with self._lock:
                found = self._places.get(key)
                if not found:
                    return None
                reader, place = found[-1]
            content = reader.read(place)
            with contextlib.suppress(ValueError):
                if content is not None:
                    kept = read_record(key, content, place.head)
                    self._touch(reader.path)
                    self.hits += 1
                    return kept
            self._forget(key, reader, place)

    def append(self, key: bytes, head: bytes, values: memoryview) -> None:
        """Write a record; one thread does.

        Raises:
            OSError: the disk is full or fails, or the folder may not be written.
        """
        if self._writer is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._writer = ShardWriter(self.folder, f"{os.getpid()}-{secrets.token_hex(6)}")
            path = self._writer.path
            with self._lock:
                self._own.add(path)
                self._readers[path] = ShardReader(path)
        place = self._writer.append(key, head, values)
        self._add(key, self._readers[self._writer.path], place)
        if self._writer.size >= self._shard_bytes:
            self._writer.close()
            self._writer = None

    def follow(self) -> None:
        """In a copy of this process: only read, and find what the original writes as what any other process does."""
        self._own.clear()
        self._writer = None
        self._look_every_s = FOLLOW_S

    def close(self) -> None:
        """End the shard that is being written; nothing is found afterwards."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        with self._lock:
            self._places = {}
            self._looked = math.inf

    def _look(self) -> None:
        """Take in what was written by others."""
        for index in sorted(self.folder.glob(f"*{INDEX}")):
            if index in self._own:
                continue
            with self._lock:
                reader = self._readers.setdefault(index, ShardReader(index))
                news = reader.news()
            for key, place in news:
                self._add(key, reader, place)

    def _add(self, key: bytes, reader: ShardReader, place: Place) -> None:
        with self._lock:
            self._places.setdefault(key, []).append((reader, place))

    def _forget(self, key: bytes, reader: ShardReader, place: Place) -> None:
        with self._lock:
            left = [one for one in self._places.get(key, []) if one != (reader, place)]
            self.damaged += reader.path.exists()
            if left:
                self._places[key] = left
            else:
                self._places.pop(key, None)

    def _touch(self, index: Path) -> None:
        now = time.monotonic()
        if now - self._touched.get(index, -TOUCH_S) < TOUCH_S:
            return
        self._touched[index] = now
        with contextlib.suppress(OSError):  # Removed, or a store that may only be read.
            os.utime(index)

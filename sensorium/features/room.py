"""How large a feature store may become, and what makes room in it.

Shards that this run has not used go first, the longest unused of them at first. What the run itself reads or writes
is never removed for its own sake: each epoch passes over all pictures, so of a store that holds fewer every entry would
go just before it is wanted. Writing stops then, with one message, and what is kept stays useful.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from sensorium.features.shard import BIN, INDEX, NEW, bin_of, in_use, remove

PREFIX = "v1-"
"""Of the folders of this format."""
RESERVE_BYTES = 2**30
"""Of the disk, never filled."""
RESCAN_BYTES = 2**26
"""What others wrote is counted again after so many bytes of one's own."""
GRACE_LOOKUPS = 2000
"""A run must have looked for so many pictures before shards of its own tower count as unused by it."""
RETRY_S = 30.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one tower has on disk."""

    folder: Path
    size_bytes: int
    used: float
    """When it was last read or written, in seconds since 1970."""


def usage(root: Path) -> list[Usage]:
    """All towers of a store, the longest unused first; folders of older formats count, too."""
    found: list[Usage] = []
    for folder in root.iterdir() if root.is_dir() else ():
        size, used = 0, 0.0
        for file in folder.rglob("*"):
            with contextlib.suppress(OSError):
                stat = file.stat()
                if file.is_file():
                    size, used = size + stat.st_size, max(used, stat.st_mtime)
        if folder.is_dir():
            found.append(Usage(folder, size, used))
    return sorted(found, key=lambda one: one.used)


def clear(root: Path) -> int:
    """Empty a store; shards that a living process writes are left.

    Returns:
        Bytes that were freed.

    Raises:
        OSError: something may not be deleted.
    """
    before = sum(one.size_bytes for one in usage(root))
    for one in usage(root):
        busy = [index for index in one.folder.glob(f"*{INDEX}") if in_use(index)]
        if not busy:
            shutil.rmtree(one.folder)
            continue
        for index in set(one.folder.glob(f"*{INDEX}")) - set(busy):
            remove(index)
    return before - sum(one.size_bytes for one in usage(root))


class Room:
    """Keeps a store below its limit."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        self._opened = time.time()
        self._used = self._free = 0
        self._since = RESCAN_BYTES
        self._full_until = 0.0

    @property
    def full(self) -> bool:
        """There was no room a moment ago."""
        return time.monotonic() < self._full_until

    def make(self, need: int, mine: Path, lookups: int) -> bool:
        """Whether `need` bytes more may be written, once what is unused is gone.

        Args:
            mine: folder of the tower that they are for.
            lookups: how often this run has looked there.
        """
        if self.full:
            return False
        if self._since >= RESCAN_BYTES:
            self._scan()
        short = self._short(need)
        if short > 0:
            self._evict(short, mine, spare_mine=lookups < GRACE_LOOKUPS)
            self._scan()
            if self._short(need) > 0:
                self._full_until = time.monotonic() + RETRY_S
                return False
        self._used += need
        self._since += need
        return True

    def _scan(self) -> None:
        self._used = 0
        for pattern in (BIN, INDEX):
            for file in self.root.glob(f"{PREFIX}*/*{pattern}"):
                with contextlib.suppress(OSError):
                    self._used += file.stat().st_size
        self._free = shutil.disk_usage(self.root).free
        self._since = 0

    def _short(self, need: int) -> int:
        """How many bytes are missing."""
        free = self._free - self._since - RESERVE_BYTES
        return max(self._used + need - self.limit_bytes, need - free)

    def _evict(self, short: int, mine: Path, *, spare_mine: bool) -> None:
        shards: list[tuple[float, Path, int]] = []
        for index in self.root.glob(f"{PREFIX}*/*{INDEX}"):
            with contextlib.suppress(OSError):
                size = index.stat().st_size + bin_of(index).stat().st_size
                shards.append((index.stat().st_mtime, index, size))
        for used, index, size in sorted(shards):
            if short <= 0 or used >= self._opened:
                break
            if (spare_mine and index.parent == mine) or in_use(index):
                continue
            with contextlib.suppress(OSError):
                remove(index)
                short -= size


def sweep(folder: Path, older_than_s: float = 3600.0) -> None:
    """Remove what a process left that was killed while it began a shard."""
    for file in (*folder.glob(f"*{NEW}"), *folder.glob(f"*{BIN}")):
        with contextlib.suppress(OSError):
            lone = file.suffix == NEW or not file.with_suffix(INDEX).exists()
            if lone and time.time() - file.stat().st_mtime > older_than_s:
                file.unlink()

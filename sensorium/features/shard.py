"""The file format of the feature store: one shard is two files that only ever grow.

`NAME.bin` holds records end to end: a JSON head and behind it the raw values. `NAME.index` has a line of 64 bytes
for each record: key, place, lengths, a checksum of the record and one of the line. The record is written before
its line, so whatever a killed process leaves behind is a tail that no line speaks of. Each writer has shards of its
own and holds a lock on them while it lives; nobody else writes or removes them then.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: nothing tells a living writer's shards, so they are left alone.
    fcntl = None

LINE = struct.Struct("<32sQQII4x")
CHECK = struct.Struct("<I")
LINE_BYTES = LINE.size + CHECK.size
BIN, INDEX, NEW = ".bin", ".index", ".new"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies, in bytes, and its checksum."""

    start: int
    length: int
    head: int
    crc: int


def write_line(key: bytes, place: Place) -> bytes:
    """A record's line in the index."""
    line = LINE.pack(key, place.start, place.length, place.head, place.crc)
    return line + CHECK.pack(zlib.crc32(line))


def read_lines(content: bytes) -> Iterator[tuple[bytes, Place]]:
    """Records by an index's bytes; damaged lines and a cut one at the end are passed over."""
    for at in range(0, len(content) - LINE_BYTES + 1, LINE_BYTES):
        line = content[at : at + LINE.size]
        (check,) = CHECK.unpack_from(content, at + LINE.size)
        if zlib.crc32(line) == check:
            key, start, length, head, crc = LINE.unpack(line)
            yield key, Place(start, length, head, crc)


class ShardWriter:
    """A new shard, and the lock on it."""

    def __init__(self, folder: Path, name: str) -> None:
        """Create both files.

        Raises:
            OSError: the folder cannot be written.
        """
        self.path = folder / (name + INDEX)
        self.size = 0
        self._bin = (folder / (name + BIN)).open("xb", buffering=0)
        fresh = folder / (name + NEW)
        self._index = fresh.open("xb", buffering=0)
        if fcntl is not None:
            fcntl.flock(self._index, fcntl.LOCK_EX)
        # Under its final name it has been locked from the beginning.
        fresh.rename(self.path)

    def append(self, key: bytes, head: bytes, values: memoryview) -> Place:
        """Write a record, then its line.

        Raises:
            OSError: the disk is full or fails; the shard holds what it held before.
        """
        crc = zlib.crc32(values, zlib.crc32(head))
        place = Place(self.size, len(head) + values.nbytes, len(head), crc)
        try:
            _write_all(self._bin, memoryview(head))
            _write_all(self._bin, values)
            _write_all(self._index, memoryview(write_line(key, place)))
        except OSError:
            # The next record must begin where the index says.
            self._bin.truncate(self.size)
            self._bin.seek(self.size)
            self._index.truncate(self._index.tell() // LINE_BYTES * LINE_BYTES)
            self._index.seek(0, os.SEEK_END)
            raise
        self.size += place.length
        return place

    def close(self) -> None:
        """Let go of the lock; an empty shard is removed."""
        if not self.size:
            self.path.unlink(missing_ok=True)
            bin_of(self.path).unlink(missing_ok=True)
        self._bin.close()
        self._index.close()


def _write_all(stream: IO[bytes], content: memoryview) -> None:
    """A raw stream may write a part only."""
    content = content.cast("B") if content.nbytes else content
    while content.nbytes:
        content = content[stream.write(content) :]


class ShardReader:
    """A shard of any process, while it may still grow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = 0

    def news(self) -> list[tuple[bytes, Place]]:
        """Records whose lines were added since the last call."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._seen)
                content = stream.read()
        except OSError:
            return []  # Removed meanwhile.
        self._seen += len(content) // LINE_BYTES * LINE_BYTES
        return list(read_lines(content))

    def read(self, place: Place) -> bytearray | None:
        """A record's bytes; None where they are damaged, cut off, or gone.

        They are read, not mapped: another process may cut the file short, which ends a program that touches
        mapped pages, and the values are copied into a batch anyway. Nor does the file stay open: a large store has more
        shards than a process may open files.
        """
        try:
            content = bytearray(place.length)
            with bin_of(self.path).open("rb", buffering=0) as stream:
                count = os.preadv(stream.fileno(), [content], place.start)
        except (OSError, OverflowError, MemoryError):
            return None  # Removed, or a place that cannot be.
        return content if count == place.length and zlib.crc32(content) == place.crc else None


def bin_of(index: Path) -> Path:
    """The file with a shard's records."""
    return index.with_suffix(BIN)


def in_use(index: Path) -> bool:
    """Whether a living process writes this shard."""
    if fcntl is None:
        return True
    try:
        with index.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def trim(index: Path) -> None:
    """Cut off what a killed writer left behind the last whole record; remove a shard without any."""
    if in_use(index):
        return
    with contextlib.suppress(OSError):  # Another process is at it, or may not write here.
        content = index.read_bytes()
        end = max((p.start + p.length for _, p in read_lines(content)), default=0)
        if not end:
            remove(index)
            return
        whole = len(content) // LINE_BYTES * LINE_BYTES
        if len(content) != whole:
            os.truncate(index, whole)
        if bin_of(index).stat().st_size > end:
            os.truncate(bin_of(index), end)


def remove(index: Path) -> None:
    """Delete a shard.

    Raises:
        OSError: it may not be deleted.
    """
    index.unlink(missing_ok=True)
    bin_of(index).unlink(missing_ok=True)

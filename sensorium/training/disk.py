"""Disks that are full or read-only: what a run will write, and errors that say what was lacking."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from sensorium.core.atomic import versions
from sensorium.core.errors import CheckpointError, ConfigError


@contextmanager
def naming(path: Path) -> Generator[None]:
    """Put a file's name into errors of the system, which leaves it out where it knows only an open file."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def writing(path: Path, needed: int | None = None) -> Generator[None]:
    """Tell of a failed write of a run's records as of a checkpoint's.

    Args:
        path: what is written, perhaps by way of a file with a temporary name.
        needed: bytes that are to be written, where that is known.

    Raises:
        CheckpointError: names the path, and says what to do.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors gives the system's error as a text.
        reason = error.strerror if isinstance(error, OSError) else None
        raise _failed(reason or str(error), path, needed) from None


def disk_error(error: OSError, path: Path, needed: int) -> CheckpointError:
    """What to tell of a failed write.

    Args:
        path: what was to be written, where the error does not name it.
        needed: bytes that were to be written.
    """
    return _failed(error.strerror or str(error), Path(error.filename or path), needed)


def _failed(reason: str, path: Path, needed: int | None) -> CheckpointError:
    free = free_bytes(path)
    room = f"{free:,} bytes are free" if needed is None else f"{needed:,} bytes are needed, {free:,} are free"
    return CheckpointError(
        f"cannot be written: {reason}; {room}", where=str(path),
        fix="make room, or make the folder writable, and go on with --resume: the last checkpoint is whole",
    )  # fmt: skip


def free_bytes(path: Path) -> int:
    """What is free on the disk of a path that need not exist."""
    there = next(x for x in (path, *path.resolve().parents) if x.exists())
    return shutil.disk_usage(there).free


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def check_disk(folder: Path, checkpoint: int, keep: int) -> None:
    """Refuse a run whose checkpoints cannot be kept.

    Args:
        folder: of the checkpoints.
        checkpoint: bytes of the largest one.
        keep: how many are kept; one more is there while it is written.

    Raises:
        ConfigError: they do not fit.
    """
    there = sum(f.stat().st_size for x in versions(folder) for f in x.iterdir())
    needed, free = (keep + 1) * checkpoint, free_bytes(folder)
    if needed > free + there:
        raise ConfigError(
            f"checkpoints need {needed:,} bytes ({keep} are kept, one is written, {checkpoint:,} each), "
            f"and {free + there:,} are free",
            where=str(folder.parent),
            fix="make room, choose another folder with --out, or lower keep_checkpoints",
        )

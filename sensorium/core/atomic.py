"""Files that appear whole or not at all: temporary name, sync, rename."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def _read_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


# Read once, at import: reading it means setting it, for all threads at once.
UMASK = _read_umask()


@contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it over `path`.

    On any exception the temporary file is removed and `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync_file(temporary)
        # mkstemp makes 0600; a finished file has the permissions the user's umask asks for.
        temporary.chmod(0o666 & ~UMASK)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Generator[Path]:
    """Yield a temporary folder beside `path` that is renamed to `path` on success.

    An existing `path` is replaced: it is moved aside, the new one takes its name, and
    only then is the old one deleted, so that a crash leaves one whole folder of the two
    (`recover_folder` finishes the job).
    """
    temporary = staging_folder(path)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(0o666 & ~UMASK)
                _sync_file(file)
        temporary.chmod(0o777 & ~UMASK)
        aside = _aside(path)
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        temporary.rename(path)
        _sync_folder(path.parent)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def staging_folder(path: Path) -> Path:
    """An empty temporary folder beside `path`, which `recover_folder` deletes should a crash leave it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))


@contextmanager
def rotating_folder(path: Path, keep: int, staged: Path | None = None) -> Generator[Path]:
    """Like `atomic_folder`, but what was at `path` becomes `path.1`, what was there `path.2`, and so on.

    Whatever moment a crash comes at, one of `versions(path)` is whole, and the first of them is the newest; only
    what is beyond `keep` of them is deleted, and only once the new one is safe.

    Args:
        staged: a `staging_folder` that others write into as well; None: one of its own.
    """
    temporary = staged or staging_folder(path)
    try:
        yield temporary
        for file in temporary.iterdir():
            file.chmod(0o666 & ~UMASK)
            _sync_file(file)
        temporary.chmod(0o777 & ~UMASK)
        _sync_folder(temporary)
        if path.exists():
            free = next(n for n in range(1, 1 << 30) if not _version(path, n).exists())
            for n in range(free, 1, -1):
                _version(path, n - 1).rename(_version(path, n))
            path.rename(_version(path, 1))
        temporary.rename(path)
        _sync_folder(path.parent)
        for old in versions(path):
            if old != path and int(old.suffix[1:]) >= keep:
                _remove(old)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def versions(path: Path) -> list[Path]:
    """The folders that `rotating_folder` left, newest first."""
    numbered = [x for x in path.parent.glob(f"{path.name}.*") if x.suffix[1:].isdigit()]
    return [path] * path.exists() + sorted(numbered, key=lambda x: int(x.suffix[1:]))


def _version(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _remove(folder: Path) -> None:
    """Delete a folder under a name that nobody takes for a whole one, should a crash leave half of it."""
    doomed = folder.with_name(f".{folder.name}.old.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Finish a replacement that a crash cut between its two renames."""
    aside = _aside(path)
    if aside.exists() and not path.exists():
        aside.rename(path)
    shutil.rmtree(aside, ignore_errors=True)
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to `path` atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def atomic_writer(path: Path) -> Generator[IO[str]]:
    """A text stream whose content becomes `path` only when the block succeeds."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        yield stream


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    if os.name == "posix":
        _sync_file(path)

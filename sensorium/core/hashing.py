"""Content hashes and reproducible pseudo-random numbers from them."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_bytes(content: bytes) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stable_int(*keys: object) -> int:
    """A 63-bit integer that depends on the keys alone: not on the process or platform."""
    text = "\x1f".join(str(key) for key in keys)
    return bytes_int(text.encode())


def bytes_int(content: bytes) -> int:
    """A 63-bit integer that depends on the bytes alone."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1

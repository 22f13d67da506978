"""What becomes of the memory that torch frees between two steps.

A training step allocates and frees the same large blocks again and again. glibc gives blocks above 32 MB
back to the system at once, which then fills every page of the next one with zeros when it is first touched. Kept
blocks save that, and cost holes: what a layer keeps lies between what it let go, and the next layer's
blocks do not fit there. Rows of 4,096 tokens whose layers run again need 1.4 times as much memory so.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# From malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
LARGEST_INT = 2**31 - 1
KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: LARGEST_INT}
# A threshold that is set no longer moves: by itself it grows to 32 MB with the first block that is freed.
RETURNED = {MMAP_MAX: 65536, MMAP_THRESHOLD: 1 << 20, TRIM_THRESHOLD: 1 << 20}


def keep_freed_blocks() -> bool:
    """Let the C library keep what is freed; whether it could be told so (glibc alone can)."""
    return _tell(KEPT)


def return_freed_blocks() -> bool:
    """Let it give back all that is freed, now and from now on, in blocks of a megabyte or more; whether it could be told so."""
    if not _tell(RETURNED):
        return False
    ctypes.CDLL(None).malloc_trim(0)
    return True


@contextmanager
def settled_objects() -> Iterator[None]:
    """While the block lasts, what exists now is not searched for garbage: libraries alone bring a million objects, and a search among
    them halts a loader that makes thousands of short-lived ones by a quarter of its time."""
    # What was made lately; a search among all would take longer than many a short stage.
    gc.collect(1)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _tell(settings: Mapping[int, int]) -> bool:
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    return all(bool(mallopt(name, value)) for name, value in settings.items())

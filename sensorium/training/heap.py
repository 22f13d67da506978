"""Memory that torch frees between two steps stays with the process.

A training step allocates and frees the same large blocks again and again. glibc gives blocks above 32 MB
back to the system at once, which then fills every page of the next one with zeros when it is first touched.
"""

from __future__ import annotations

import ctypes
import sys

# From malloc.h.
TRIM_THRESHOLD, MMAP_MAX = -1, -4
LARGEST_INT = 2**31 - 1


def keep_freed_blocks() -> bool:
    """Let the C library keep what is freed; whether it could be told so (glibc alone can)."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, LARGEST_INT))

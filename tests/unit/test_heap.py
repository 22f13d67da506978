"""Freed memory stays with the process, or goes back to the system, as a stage asks."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

# Blocks of 8 MB that are freed while small neighbours stay, as in a step.
CODE = """
import json
from sensorium.training.heap import keep_freed_blocks, return_freed_blocks

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

def left(tell):
    before, kept = resident_mb(), []
    assert tell()
    for _ in range(8):
        block = bytearray(b"x") * (8 << 20)
        kept.append(bytearray(b"x") * 100_000)
        del block
    blocks = [bytearray(b"x") * (8 << 20) for _ in range(8)]
    del blocks
    return resident_mb() - before

print(json.dumps([left(tell) for tell in (return_freed_blocks, keep_freed_blocks, return_freed_blocks)]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be told")
def test_what_is_freed_stays_or_goes() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    first, kept, last = json.loads(done.stdout)
    assert first <= 4
    assert kept >= 50
    # What was kept before goes back, too.
    assert last <= -40

"""Sides as processes that take turns, so that a slow minute of the machine falls on all of them alike."""

from __future__ import annotations

import json
import os
import random
import select
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Turn = dict[str, Any]
"""Samples, tokens, seconds and loss of a turn."""
# On every side: the heap keeps freed blocks (glibc), and torch runs on the threads it is told.
HEAP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2147483647"}


class SideError(SystemExit):
    """A side stopped, or took too long; it ends the comparison unless somebody goes on with another."""


@dataclass
class Side:
    """One trainer in a process of its own."""

    name: str
    command: list[str]
    threads: int
    log: Path
    turns: list[Turn] = field(default_factory=list)
    process: Any = None
    peak_mb: int = 0
    gpu_mb: int = 0
    heap: Mapping[str, str] = field(default_factory=lambda: HEAP)
    limit_s: float | None = None
    """For a start or a turn; None: as long as it takes."""

    def start(self) -> None:
        """Start, and wait until its first step, which is not counted, is done."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start, so that several sides make themselves ready at once."""
        count = str(self.threads)
        env = {**os.environ, **self.heap, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(self.command, cwd=HERE, env=env, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.log.open("w"))  # fmt: skip

    def wait(self) -> None:
        """Until its first step is done."""
        self._read()

    def turn(self, samples: int, *, counted: bool = True) -> Turn:
        """Let it train on so many samples."""
        self.process.stdin.write(f"go {samples}\n")
        self.process.stdin.flush()
        done = self._read()
        if counted:
            self.turns.append(done)
        return done

    def _read(self) -> dict[str, Any]:
        ready, _, _ = select.select([self.process.stdout], [], [], self.limit_s)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.process.kill()
            why = "stopped before its turn was over" if ready else f"took more than {self.limit_s:.0f} s"
            tail = "\n".join(self.log.read_text().splitlines()[-15:])
            raise SideError(f"{self.name} {why}; the end of {self.log}:\n{tail}")
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        self.peak_mb = int(status.split("VmHWM:")[1].split()[0]) // 1024
        told = json.loads(line)
        self.gpu_mb = told["gpu_mb"]
        return told

    def stop(self) -> None:
        """End it, if it was begun and still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()

    @property
    def rates(self) -> dict[str, float]:
        """Of all turns together."""
        seconds = sum(turn["seconds"] for turn in self.turns)
        return {f"{what}_per_s": round(sum(turn[what] for turn in self.turns) / seconds, 3)
                for what in ("samples", "tokens")}  # fmt: skip


def play(sides: Sequence[Side], rounds: int, samples: Mapping[str, int]) -> None:
    """Rounds in which every side has one turn, in an order that rotates."""
    for number in range(rounds):
        for place in range(len(sides)):
            side = sides[(number + place) % len(sides)]
            done = side.turn(samples[side.name])
            print(f"  round {number + 1}  {side.name:8s} {done['samples'] / done['seconds']:8.2f} samples/s "
                  f"{done['tokens'] / done['seconds']:9.0f} tokens/s", flush=True)  # fmt: skip


def ratio(ours: Sequence[Turn], others: Sequence[Turn]) -> dict[str, float]:
    """Median of the ratios of tokens a second in turns that were played beside one another, and a 95 % bootstrap interval of that median.

    Tokens, not samples: a turn's samples are other ones on each side, and longer ones are more work.
    """
    pairs = [(a["tokens"] / a["seconds"]) / (b["tokens"] / b["seconds"]) for a, b in zip(ours, others, strict=True)]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(pairs, k=len(pairs))) for _ in range(2000))
    return {"median": round(statistics.median(pairs), 3), "low": round(medians[50], 3), "high": round(medians[1949], 3)}

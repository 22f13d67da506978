"""How sides of a comparison take turns: a side works only while it has been told to.

The conductor writes `go SAMPLES` on a side's standard input. The side runs optimiser steps until it has
done as many samples, writes one line of JSON with what it did and how long it took, and waits.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field


@dataclass
class Turns:
    """Kept by a side; `did` is called behind every optimiser step."""

    wanted: int = 0
    samples: int = 0
    tokens: int = 0
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    start: float = 0.0
    # What a trainer prints must not be taken for an answer.
    out: int = field(default_factory=lambda: os.dup(1))

    def __post_init__(self) -> None:
        os.dup2(2, 1)

    def did(self, *, samples: int, tokens: int, loss: float) -> None:
        """Count a step; at the end of a turn, answer and wait for the next."""
        self.samples += samples
        self.tokens += tokens
        self.steps += 1
        self.losses.append(loss)
        if self.samples >= self.wanted:
            self._answer()

    def _answer(self) -> None:
        line = {"samples": self.samples, "tokens": self.tokens, "steps": self.steps,
                "seconds": time.perf_counter() - self.start, "losses": self.losses, "gpu_mb": _gpu_mb()}  # fmt: skip
        os.write(self.out, (json.dumps(line) + "\n").encode())
        told = sys.stdin.readline().split()
        if not told:
            os._exit(0)
        self.wanted, self.samples, self.tokens, self.steps, self.losses = int(told[1]), 0, 0, 0, []
        self.start = time.perf_counter()


def _gpu_mb() -> int:
    """The most that tensors have taken of a GPU so far; 0 without one."""
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_allocated() >> 20 if torch is not None and torch.cuda.is_available() else 0

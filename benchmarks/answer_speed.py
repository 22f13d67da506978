"""Seconds from a question to its answer: boxes of nano-points, with and without masks, and drawings of nano-draws and nano-diffuses.

    python benchmarks/answer_speed.py [--threads 2] [--tries 20] [--answers box mask drawing diffusion]

One question after another, weights loaded, the first answer left out. Questions are those of the benchmarks `pointing`
(about what is there) and `drawing`. Only answers that hold what is timed count; `without` is how many came without it. The
median counts; beside it stand the 5th and 95th percentile. `processor_s` is the median of processor time: with one thread, one far
below `median_s` says that something else was running.

    python benchmarks/answer_speed.py --answers drawing      # the seconds of a drawing on nano-draws' card
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensorium.api import load
from sensorium.core.errors import DataError
from sensorium.core.hands import MadeKind
from sensorium.core.responder import Request, Responder
from sensorium.evaluation.benchmarks.drawing import DrawingBenchmark
from sensorium.evaluation.benchmarks.pointing import PointingBenchmark

CPU_INFO = Path("/proc/cpuinfo")

ASKED_PER_TRY = 5
"""At most so many questions for each answer that is timed."""


@dataclass(frozen=True, slots=True)
class Timed:
    """What is timed, of whom."""

    model: str
    part: str
    """The kind of part that an answer must hold to count."""
    makes: frozenset[MadeKind]
    requests: Callable[[int], list[Request]]
    """So many questions."""


def _pointing(count: int) -> list[Request]:
    # A third of that benchmark asks for what is not there.
    items = PointingBenchmark(count=2 * count).items()
    return [item.request for item in items if "absent" not in item.tags][:count]


def _drawing(count: int) -> list[Request]:
    return [item.request for item in DrawingBenchmark(count=count).items()]


TIMED = {
    "box": Timed("nano-points", "boxes", frozenset(), _pointing),
    "mask": Timed("nano-points", "mask", frozenset(["mask"]), _pointing),
    "drawing": Timed("nano-draws", "image", frozenset(["image"]), _drawing),
    "diffusion": Timed("nano-diffuses", "image", frozenset(["image"]), _drawing),
}


def seconds_of(responder: Responder, requests: Sequence[Request], part: str, tries: int) -> dict[str, Any]:
    """Time answers until so many hold such a part.

    Raises:
        DataError: all questions were asked, and too few did.
    """
    seconds: list[float] = []
    processor: list[float] = []
    without = 0
    for number, request in enumerate(requests):
        start, busy = time.perf_counter(), time.process_time()
        (answer,) = responder.respond([request])
        taken, busy = time.perf_counter() - start, time.process_time() - busy
        if number == 0:
            continue
        if any(one.type == part for one in answer.parts):
            seconds.append(taken)
            processor.append(busy)
        else:
            without += 1
        if len(seconds) == tries:
            low, middle, high = (round(float(np.percentile(seconds, at)), 3) for at in (5, 50, 95))
            return {"median_s": middle, "p5_s": low, "p95_s": high, "processor_s": round(float(np.median(processor)), 3),
                    "answers": tries, "without": without}  # fmt: skip
    raise DataError(f"{len(seconds)} answers with a part {part!r}", expected=f"{tries} of {len(requests) - 1}",
                    where="answer_speed", fix="give fewer --tries, or a model that makes it")  # fmt: skip


def processor() -> str:
    """The processor's name, as Linux tells it; elsewhere its architecture."""
    told = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    named = [line.partition(":")[2].strip() for line in told if line.startswith("model name")]
    return named[0] if named else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--answers", nargs="+", choices=list(TIMED), default=list(TIMED))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    loaded: dict[str, Any] = {}
    result: dict[str, Any] = {}
    for name in options.answers:
        timed = TIMED[name]
        if timed.model not in loaded:
            loaded[timed.model] = load(timed.model, "cpu")
        requests = [replace(request, makes=timed.makes) for request in timed.requests(ASKED_PER_TRY * options.tries + 1)]
        result[name] = {"model": timed.model} | seconds_of(loaded[timed.model].responder, requests, timed.part, options.tries)
    print(json.dumps({"processor": processor(), "threads": options.threads, "seconds": result}, indent=1))


if __name__ == "__main__":
    main()

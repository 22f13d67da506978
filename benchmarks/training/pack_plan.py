"""How full packed rows are, and how long the plan takes: a million samples of realistic lengths.

    python benchmarks/training/pack_plan.py [--samples 1000000]

Questions and answers are lognormal; three of four samples have a picture of 64 to 576 tokens. The window is
the loader's own; `all at once` is the bound that a window without end would reach.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

from machine import RESULTS, keep

from sensorium.data.mixture import MixtureOrder, Pick
from sensorium.data.plan import Limits, Size, pack_rows
from sensorium.data.window import PlanOptions, Windows


def lengths(count: int, longest: int) -> list[Size]:
    """Sizes cut to a row, as training cuts them."""
    rng = random.Random(0)
    made: list[Size] = []
    for _ in range(count):
        pictures = int(rng.random() < 0.75)
        tokens = 20 + int(rng.lognormvariate(4.6, 0.8)) + pictures * rng.choice((64, 144, 256, 576))
        made.append(Size((min(longest, tokens),), pictures))
    return made


@dataclass(frozen=True, slots=True)
class Known:
    """A length that needs no measuring."""

    size: Size

    def result(self) -> Size:
        return self.size


def windowed(sizes: list[Size], options: PlanOptions) -> tuple[float, float]:
    """Fill, and CPU seconds with drawing the picks."""
    order = MixtureOrder([len(sizes)], [1.0], seed=0)

    def known(pick: Pick) -> Known:
        return Known(sizes[pick.row])

    began, rows, tokens, seen = time.process_time(), 0, 0, 0
    for batch in Windows(order, options, known).batches(order.start()):
        for row in batch.rows:
            rows += 1
            tokens += sum(sizes[pick.row].tokens for pick in row)
            seen += len(row)
        if seen >= len(sizes):
            break
    return tokens / (rows * options.max_length), time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    count, plans = options.samples, list[dict[str, float | int | None]]()
    print("max_length  cap  fill of windows  CPU s (with picks)  fill all at once  CPU s (packing)")
    for longest in (512, 1024, 2048, 4096):
        sizes = lengths(count, longest)
        for cap in (None, max(2, longest // 200)):
            fill, seconds = windowed(sizes, PlanOptions(8, longest, pack=True, max_pictures=cap))
            began = time.process_time()
            rows = pack_rows(sizes, Limits(longest, cap))
            packing = time.process_time() - began
            whole = sum(size.tokens for size in sizes) / (len(rows) * longest)
            print(f"{longest:10}  {cap or '-':>3}  {fill:15.4f}  {seconds:18.1f}  {whole:16.4f}  {packing:17.2f}", flush=True)
            plans.append({"max_length": longest, "max_pictures": cap, "fill": round(fill, 4), "cpu_s": round(seconds, 2),
                          "fill_all_at_once": round(whole, 4), "cpu_s_all_at_once": round(packing, 2)})  # fmt: skip
    keep("plan", {"samples": count, "plans": plans}, options.out)


if __name__ == "__main__":
    main()

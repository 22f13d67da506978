"""Products of a linear layer, frozen or learning, forward and back, ours and torch's, in one run.

    python benchmarks/product_speed.py [--rows 2048] [--rounds 20]

The sizes are those of SmolLM2-135M's layers. One thread; the order alternates, and the medians of processor time are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import product

import torch
from torch import Tensor, nn

from sensorium.nn.frozen_linear import laid_out
from sensorium.nn.learned_linear import multiplied
from sensorium.training.heap import keep_freed_blocks

SIZES = ((576, 576), (576, 192), (576, 1536), (1536, 576))
"""Inputs and outputs."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_blocks()  # As training does.
    for learns, (inputs, outputs) in product((False, True), SIZES):
        plain, ours = (nn.Linear(inputs, outputs, bias=False).requires_grad_(learns) for _ in range(2))
        x = torch.randn(options.rows, inputs, requires_grad=True)
        upstream = torch.randn(options.rows, outputs)
        taken: dict[str, list[tuple[float, float]]] = {"ours": [], "torch": []}
        with (multiplied if learns else laid_out)([ours]):
            for turn in range(options.rounds + 1):
                for name in sorted(taken, reverse=bool(turn % 2)):
                    taken[name].append(_seconds(ours if name == "ours" else plain, x, upstream))
        work = 2e-9 * options.rows * inputs * outputs
        # Back, a layer that learns makes two products.
        rate = {name: [round(products * work / statistics.median(times), 1) for products, times in zip((1, 1 + learns), zip(*pairs[1:], strict=True), strict=True)]
                for name, pairs in taken.items()}  # fmt: skip
        both = {name: sum(statistics.median(times) for times in zip(*pairs[1:], strict=True)) for name, pairs in taken.items()}
        print(json.dumps({"learns": learns, "inputs": inputs, "outputs": outputs, "gflops forward, back": rate,
                          "torch / ours": round(both["torch"] / both["ours"], 2)}), flush=True)  # fmt: skip


def _seconds(layer: nn.Linear, x: Tensor, upstream: Tensor) -> tuple[float, float]:
    start = time.process_time()
    out = layer(x)
    middle = time.process_time()
    torch.autograd.grad(out, [x, *(weight for weight in layer.parameters() if weight.requires_grad)], upstream)
    return middle - start, time.process_time() - middle


if __name__ == "__main__":
    main()

"""Causal attention of one sample, forward and back, ours and torch's, in one run.

    python benchmarks/attention_speed.py [--heads 9 --key-heads 3 --width 64]

One thread; the order alternates, and the medians of processor time are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.nn.grouped_attention import grouped_attention
from sensorium.training.heap import keep_freed_blocks

LENGTHS = (64, 96, 128, 192, 256, 384, 512)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--key-heads", type=int, default=3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_blocks()  # As training does.
    for tokens in LENGTHS:
        heads = (options.heads, options.key_heads, options.key_heads)
        q, k, v = (torch.randn(1, tokens, count, options.width).transpose(1, 2).requires_grad_() for count in heads)
        upstream = torch.randn(1, tokens, options.heads, options.width)
        sides = {"ours": lambda q=q, k=k, v=v: grouped_attention(q, k, v, [q.shape[2]]), "torch": lambda q=q, k=k, v=v: _torch(q, k, v)}
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(options.rounds + 1):
            for name in sorted(sides, reverse=bool(turn % 2)):
                taken[name].append(_seconds(sides[name], (q, k, v), upstream))
        ms = {name: round(1e3 * statistics.median(times[1:]), 2) for name, times in taken.items()}
        print(json.dumps({"tokens": tokens, "ms": ms, "torch / ours": round(ms["torch"] / ms["ours"], 2)}), flush=True)


def _torch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)


def _seconds(attend: Callable[[], Tensor], inputs: tuple[Tensor, ...], upstream: Tensor) -> float:
    start = time.process_time()
    torch.autograd.grad(attend(), inputs, upstream)
    return time.process_time() - start


if __name__ == "__main__":
    main()

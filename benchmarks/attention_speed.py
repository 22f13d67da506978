"""Causal attention of a packed row's samples, all equally long, forward and back, ours and torch's, in one run.

    python benchmarks/attention_speed.py [--heads 9 --key-heads 3 --width 64]

One thread; the order alternates, and the medians of processor time are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.nn.grouped_attention import grouped_attention
from sensorium.training.heap import keep_freed_blocks

LENGTHS = (64, 96, 128, 192, 256, 384, 512)
ROW_TOKENS = 2048
"""In all: a single sample stays in the cache, as none does in training."""


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
        lengths = [tokens] * (ROW_TOKENS // tokens)
        q, k, v = (torch.randn(1, sum(lengths), count, options.width).transpose(1, 2).requires_grad_() for count in heads)
        upstream = torch.randn(1, sum(lengths), options.heads, options.width)
        sides = {name: partial(attend, q, k, v, lengths) for name, attend in (("ours", grouped_attention), ("torch", _torch))}
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(options.rounds + 1):
            for name in sorted(sides, reverse=bool(turn % 2)):
                taken[name].append(_seconds(sides[name], (q, k, v), upstream))
        ms = {name: round(1e3 * statistics.median(times[1:]), 2) for name, times in taken.items()}
        print(json.dumps({"tokens": tokens, "ms": ms, "torch / ours": round(ms["torch"] / ms["ours"], 2)}), flush=True)


def _torch(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    parts = zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True).transpose(1, 2) for part in parts], dim=1)


def _seconds(attend: Callable[[], Tensor], inputs: tuple[Tensor, ...], upstream: Tensor) -> float:
    start = time.process_time()
    torch.autograd.grad(attend(), inputs, upstream)
    return time.process_time() - start


if __name__ == "__main__":
    main()

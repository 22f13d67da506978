"""What the machine can do: matrix products at a model's own shapes, memory bandwidth; and the least work of a step."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from shapes import LARGE, VOCABULARY, Shape

from sensorium.nn.onednn import has_onednn, product

GPU_REPEATS = 20


def best_seconds(run: Callable[[], object], tries: int = 7) -> float:
    run()
    best = float("inf")
    for _ in range(tries):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def gemm_gflops(shape: Shape, tokens: int = 2048, device: str = "cpu") -> float:
    """Rate of the layers' matrix products, forward and both backward ones, at the model's own shapes: in fp32, each by the faster of torch's
    two libraries, or on a GPU in bf16, of all tokens of a step."""
    width, inner = shape.text["hidden_size"], shape.text["intermediate_size"]
    pairs = ((width, width), (width, inner), (inner, width))
    if device == "cpu":
        seconds = sum(_product_seconds(tokens, *pair) for pair in pairs)
    else:
        tokens = shape.rows * shape.row_tokens
        seconds = sum(_gpu_seconds(tokens, *pair) for pair in pairs)
    flops = sum(3 * 2 * tokens * rows * columns for rows, columns in pairs)
    return round(flops / seconds / 1e9, 1)


def _product_seconds(tokens: int, rows: int, columns: int) -> float:
    """A linear layer's three products."""
    x, w, g = torch.randn(tokens, rows), torch.randn(columns, rows), torch.randn(tokens, columns)
    out, dx, dw = torch.empty(tokens, columns), torch.empty(tokens, rows), torch.empty(columns, rows)
    seconds = [best_seconds(lambda: torch.mm(x, w.t(), out=out)), best_seconds(lambda: torch.mm(g, w, out=dx)),
               best_seconds(lambda: torch.mm(g.t(), x, out=dw))]  # fmt: skip
    if has_onednn():
        others = [best_seconds(lambda: product(x, w)), best_seconds(lambda: product(g, w.t())), best_seconds(lambda: product(g.t(), x.t()))]
        seconds = [min(pair) for pair in zip(seconds, others, strict=True)]
    return sum(seconds)


def _gpu_seconds(tokens: int, rows: int, columns: int) -> float:
    """The same on a GPU in bf16, as the mean of many in a row."""
    x, w, g = (torch.randn(*size, device="cuda", dtype=torch.bfloat16) for size in ((tokens, rows), (columns, rows), (tokens, columns)))

    def many() -> None:
        for _ in range(GPU_REPEATS):
            torch.mm(x, w.t())
            torch.mm(g, w)
            torch.mm(g.t(), x)
        torch.cuda.synchronize()

    return best_seconds(many, tries=3) / GPU_REPEATS


def bandwidth_gbs(device: str = "cpu") -> float:
    """Bytes read and written a second by a large copy."""
    size = (32 if device == "cpu" else 1024) << 20
    a, b = torch.zeros(size, device=device), torch.empty(size, device=device)
    if device != "cpu":
        rate = round(2 * size * 4 / best_seconds(lambda: (b.copy_(a), torch.cuda.synchronize())) / 1e9, 1)
        del a, b
        # What is measured next needs the memory.
        torch.cuda.empty_cache()
        return rate
    return round(2 * a.numel() * 4 / best_seconds(lambda: b.copy_(a)) / 1e9, 1)


def least_flops(shape: Shape, stage: int, tokens: float, answers: float, squares: float) -> float:
    """The arithmetic that no exact step can leave out, with the tower's outputs at hand.

    Args:
        tokens: real ones, of all samples.
        answers: learned ones among them, which alone reach the vocabulary.
        squares: the samples' lengths, squared and summed.
    """
    text = shape.text
    width, inner, layers = text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]
    keys = width * text["num_key_value_heads"] // text["num_attention_heads"]
    weights = layers * (2 * width * width + 2 * width * keys + 3 * width * inner)
    # Forward, gradients of activations, and of weights where they learn.
    passes = 2 if stage == 1 or shape is LARGE else 3
    # Scores and mixtures of a triangle: forward 2 products, backward 5.
    attention = layers * width * squares * (2 + 5)
    return 2 * passes * (weights * tokens + width * VOCABULARY * answers) + attention

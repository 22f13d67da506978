"""What OpenFlamingo itself and ours are asked, and the weights of both."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

IMAGE, EVERY = 59, 2
GPT_NEOX = {"model_type": "gpt_neox", "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": 64}  # fmt: skip
OPT = {"model_type": "opt", "vocab_size": 60, "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48,
       "num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": 64}  # fmt: skip
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}  # fmt: skip
CASES = {
    "start": [IMAGE, 5, 6, 7, 8],
    "middle": [2, 5, 6, IMAGE, 7, 8, 9],
    "end": [2, 5, 6, 7, IMAGE],
    "two": [2, 5, IMAGE, 6, 7, 58, IMAGE, 8, 9, 10],
    "two alike": [IMAGE, IMAGE, 5, 6],
}


def wave(shape: tuple[int, ...], phase: float) -> torch.Tensor:
    """Numbers that any program can write down again, without a pattern along rows."""
    steps = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.7 * steps + 1e-4 * steps**2 + phase).reshape(shape).float()


@torch.no_grad()
def fill(tensors: Mapping[str, torch.Tensor]) -> None:
    """Give every tensor its values, by the order of their names."""
    for number, (name, tensor) in enumerate(sorted(tensors.items())):
        if not tensor.is_floating_point():
            continue
        value = wave(tuple(tensor.shape), 3.0 * number)
        if tensor.ndim > 1:
            tensor.copy_(value * 1.5 / math.sqrt(math.prod(tensor.shape[1:])))
        elif "norm" in name or name.endswith((".0.weight", ".norm.weight")):
            tensor.copy_(0.2 * value + (1.0 if name.endswith("weight") else 0.0))
        else:
            tensor.copy_(0.5 * value + (0.6 if name.endswith("gate") else 0.0))


def pixels(count: int) -> torch.Tensor:
    """Pictures as a tower reads them, (N, 3, 28, 28)."""
    return wave((count, 3, 28, 28), 0.5)

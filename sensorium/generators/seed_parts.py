"""Parts of SEED's tokenizer (`seed.py`): sizes of its queries, what is behind its codes, and how one embedding comes of all codes.

Shape legend: B pictures, N codes of a picture, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

NARROW = (256, 128, 32)


@dataclass(frozen=True, slots=True)
class Former:
    """Sizes of a Q-Former that reads no text (`nn.query_former.FormerShape`)."""

    queries: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    extra: int = 0
    cross_every: int = 2
    norm_eps: float = 1e-12
    words: int | None = None
    max_words: int = 0


def narrow(width: int) -> nn.Sequential:
    """A code as few numbers."""
    first, second, last = (nn.Linear(a, b, bias=False) for a, b in pairwise((width, *NARROW)))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


class Blocks(nn.Module):
    """Codes with a place each, through layers with norms in front."""

    def __init__(self, codes: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.places_ND = nn.Parameter(torch.zeros(codes, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True,
            ) for _ in range(layers))  # fmt: skip

    def forward(self, x_BND: Tensor) -> Tensor:
        x_BND = x_BND + self.places_ND
        for layer in self.layers:
            x_BND = layer(x_BND)
        return x_BND

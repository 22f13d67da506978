"""A small encoder-decoder: queries read a row of vectors that have first read one another.

It is torch's `nn.Transformer` with `norm_first`, ReLU and no dropout, which GILL (arXiv:2305.17216), NExT-GPT
(arXiv:2309.05519) and MiniGPT-5 (arXiv:2310.02239) put between an LLM and a generator: norms before each part and one
behind each stack, biases everywhere, no positions and no masks.

Shape legend: B items, K vectors of the source, L queries, E width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.nn.attention import Attention


@dataclass(frozen=True, slots=True)
class StackShape:
    """Sizes of both stacks."""

    width: int
    layers: int
    """Of each."""
    heads: int
    mlp_width: int


class EncoderDecoder(nn.Module):
    """(B, K, E) read by (B, L, E) -> (B, L, E)."""

    def __init__(self, shape: StackShape) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.layers))
        self.encoder_norm = nn.LayerNorm(shape.width)
        self.decoder = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        self.decoder_norm = nn.LayerNorm(shape.width)
        self._begin()

    def forward(self, source_BKE: Tensor, queries_BLE: Tensor) -> Tensor:
        for layer in self.encoder:
            source_BKE = layer(source_BKE)
        source_BKE = self.encoder_norm(source_BKE)
        for layer in self.decoder:
            queries_BLE = layer(queries_BLE, source_BKE)
        return self.decoder_norm(queries_BLE)

    def _begin(self) -> None:
        """First weights as torch's own: Xavier for all matrices, those of q, k and v as one of three times
        the height; no bias in attention."""
        for name, weight in self.named_parameters():
            if weight.ndim > 1:
                joint = name.rpartition(".")[0].endswith((".q", ".k", ".v"))
                nn.init.xavier_uniform_(weight, gain=0.5**0.5 if joint else 1.0)
            elif "_attention." in name:
                nn.init.zeros_(weight)


class EncoderLayer(nn.Module):
    """Attention among the source, then a feed-forward part."""

    def __init__(self, shape: StackShape) -> None:
        super().__init__()
        self.norm_self, self.norm_ff = (nn.LayerNorm(shape.width) for _ in range(2))
        self.self_attention = _attention(shape)
        self.up = nn.Linear(shape.width, shape.mlp_width)
        self.down = nn.Linear(shape.mlp_width, shape.width)

    def forward(self, source_BKE: Tensor) -> Tensor:
        normed_BKE = self.norm_self(source_BKE)
        source_BKE = source_BKE + self.self_attention(normed_BKE, normed_BKE)
        return source_BKE + self.down(F.relu(self.up(self.norm_ff(source_BKE))))


class DecoderLayer(nn.Module):
    """Attention among the queries, then to the source, then a feed-forward part."""

    def __init__(self, shape: StackShape) -> None:
        super().__init__()
        self.norm_self, self.norm_cross, self.norm_ff = (nn.LayerNorm(shape.width) for _ in range(3))
        self.self_attention = _attention(shape)
        self.cross_attention = _attention(shape)
        self.up = nn.Linear(shape.width, shape.mlp_width)
        self.down = nn.Linear(shape.mlp_width, shape.width)

    def forward(self, queries_BLE: Tensor, source_BKE: Tensor) -> Tensor:
        normed_BLE = self.norm_self(queries_BLE)
        queries_BLE = queries_BLE + self.self_attention(normed_BLE, normed_BLE)
        queries_BLE = queries_BLE + self.cross_attention(self.norm_cross(queries_BLE), source_BKE)
        return queries_BLE + self.down(F.relu(self.up(self.norm_ff(queries_BLE))))


def _attention(shape: StackShape) -> Attention:
    head = shape.width // shape.heads
    return Attention(shape.width, shape.width, num_heads=shape.heads, head_dim=head, bias=True)

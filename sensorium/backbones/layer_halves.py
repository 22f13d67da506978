"""A decoder layer in two halves, in front of its attention and behind it, each of which compiles to one program for all layers and lengths.

Between them stands attention over samples of packed rows, whose number changes from batch to batch. What is compiled as a whole
goes through memory once where transformers' steps go many times: norms, rotary positions, gates and sums.

Shape legend: N tokens, M wanted ones, D width, H heads, G key heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sensorium.backbones.lean_layer import is_plain
from sensorium.nn.rotary import rotate
from sensorium.nn.segment_attention import Layout, attend

NAME = "halves"
"""Of the attribute under which a layer holds its two functions."""
Halves = tuple[Callable[..., Any], Callable[..., Any]]


@contextmanager
def halved(layers: Sequence[Any], halves: Halves) -> Iterator[None]:
    """While the block lasts, layers work by these two functions where a layout of samples comes along."""
    for layer in layers:
        layer.__dict__[NAME] = halves
    try:
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop(NAME, None)


def can_halve(layer: Any) -> bool:
    """Whether the halves do all that the layer does, dropout of attention apart."""
    return NAME in layer.__dict__ and is_plain(layer)


def work_in_halves(layer: Any, hidden_1ND: Tensor, angles: tuple[Tensor, Tensor], layout: Layout, wanted_M: Tensor | None) -> Tensor:
    """The layer's output, (1, N, D), or (1, M, D) of the wanted tokens.

    Args:
        angles: cosines and sines, (1, N, E) each.
    """
    front, back = layer.__dict__[NAME]
    q_1HNE, k_1GNE, v_1GNE = front(layer, hidden_1ND, *angles)
    dropout = layer.self_attn.attention_dropout if layer.self_attn.training else 0.0
    mixed_1NHE = attend(q_1HNE, k_1GNE, v_1GNE, layout, scale=layer.self_attn.scaling, dropout=dropout)
    if wanted_M is not None:
        hidden_1ND, mixed_1NHE = hidden_1ND.index_select(1, wanted_M), mixed_1NHE.index_select(1, wanted_M)
    return back(layer, hidden_1ND, mixed_1NHE)


def front_half(layer: Any, hidden_1ND: Tensor, cos_1NE: Tensor, sin_1NE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (1, H, N, E), keys and values (1, G, N, E)."""
    attention = layer.self_attn
    x_1ND = layer.input_layernorm(hidden_1ND)
    q, k, v = (project(x_1ND).unflatten(-1, (-1, attention.head_dim)) for project in (attention.q_proj, attention.k_proj, attention.v_proj))
    cos, sin = cos_1NE[:, :, None], sin_1NE[:, :, None]
    # Turned in the angles' precision, and handed on in that of the products.
    q, k = (rotate(x, cos, sin).to(v.dtype) for x in (q, k))
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def back_half(layer: Any, hidden_1ND: Tensor, mixed_1NHE: Tensor) -> Tensor:
    """What comes out behind attention and feed-forward part, each summed with its input."""
    kept_1ND = hidden_1ND + layer.self_attn.o_proj(mixed_1NHE.flatten(2))
    return kept_1ND + layer.mlp(layer.post_attention_layernorm(kept_1ND))


def compiled_halves(*, one_length: bool = False) -> Halves:
    """Both as programs that take layers and lengths as they come, or where these never change, made for one."""
    return torch.compile(front_half, dynamic=not one_length), torch.compile(back_half, dynamic=not one_length)

"""Causal attention of one sample on a CPU, where several query heads share each key head, forward and back.

The queries that share a key head lie behind one another, token by token, so that each product reads its keys once for all
of them; and what the mask would hide is not computed: each block of tokens meets the keys up to its own end. On one
core of an AMD EPYC, 9 query heads on 3 key heads of width 64 and 256 tokens take 0.8 of the time of torch's kernel, forward and back, 512 tokens 0.6
(`benchmarks/attention_speed.py`). The probabilities are kept for the backward pass, which is why samples are short.

Shape legend: H query heads, G key heads, R = H / G queries of a key head, L tokens, E width of a head, Q = L R queries,
S queries of a block, K keys that a block meets.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SHORTEST, LONGEST = 192, 512
"""Tokens of a sample. Below, calls cost more than they save; above, the probabilities take more memory than the states of a layer."""
BLOCK = 64
"""Tokens of a block."""


def can_group(q_1HLE: Tensor, k_1GLE: Tensor, v_1GLE: Tensor) -> bool:
    """Whether these tensors are attended to faster here than by torch's own kernel, and as exactly."""
    tokens, heads, key_heads = q_1HLE.shape[2], q_1HLE.shape[1], k_1GLE.shape[1]
    return (
        not torch.compiler.is_compiling()
        and SHORTEST <= tokens <= LONGEST
        and heads > key_heads
        and k_1GLE.shape[2] == tokens
        and q_1HLE.shape[3] == v_1GLE.shape[3]
        and all(x.dtype == torch.float32 and x.device.type == "cpu" for x in (q_1HLE, k_1GLE, v_1GLE))
        and not torch.is_autocast_enabled("cpu")
    )


def grouped_attention(q_1HLE: Tensor, k_1GLE: Tensor, v_1GLE: Tensor, scale: float | None = None) -> Tensor:
    """Causal attention, (1, L, H, E); scores are multiplied by `scale`, else by one over the root of E."""
    return _Grouped.apply(q_1HLE, k_1GLE, v_1GLE, scale or q_1HLE.shape[3] ** -0.5)  # pyright: ignore[reportReturnType]


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_1HLE: Tensor, k_1GLE: Tensor, v_1GLE: Tensor, scale: float) -> Tensor:
        key_heads, tokens = k_1GLE.shape[1:3]
        group = q_1HLE.shape[1] // key_heads
        q_GQE = _by_token(q_1HLE[0] * scale, key_heads)
        k_GLE, v_GLE = k_1GLE[0].contiguous(), v_1GLE[0].contiguous()
        mixed_GQE = torch.empty_like(q_GQE)
        kept: list[Tensor] = []
        for begin, end in _blocks(tokens):
            queries = slice(begin * group, end * group)
            chance_GSK = torch.bmm(q_GQE[:, queries], k_GLE[:, :end].transpose(1, 2))
            chance_GSK[:, :, begin:end] += _ahead(end - begin, group)
            torch.softmax(chance_GSK, -1, out=chance_GSK)
            torch.bmm(chance_GSK, v_GLE[:, :end], out=mixed_GQE[:, queries])
            kept.append(chance_GSK)
        ctx.save_for_backward(q_GQE, k_GLE, v_GLE, mixed_GQE, *kept)
        ctx.scale = scale
        return _by_head(mixed_GQE, tokens).transpose(0, 1)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        q_GQE, k_GLE, v_GLE, mixed_GQE, *kept = ctx.saved_tensors
        key_heads, tokens, _ = k_GLE.shape
        group = q_GQE.shape[1] // tokens
        dmixed_GQE = _by_token(grads[0][0].transpose(0, 1), key_heads)
        # The softmax's gradient is chance * (dchance - what all of a query's keys have of it together).
        shared_GQ1 = (dmixed_GQE * mixed_GQE).sum(-1, keepdim=True)
        dq_GQE, dk_GLE, dv_GLE = torch.empty_like(q_GQE), torch.zeros_like(k_GLE), torch.zeros_like(v_GLE)
        for (begin, end), chance_GSK in zip(_blocks(tokens), kept, strict=True):
            queries = slice(begin * group, end * group)
            dmixed_GSE = dmixed_GQE[:, queries]
            dv_GLE[:, :end].baddbmm_(chance_GSK.transpose(1, 2), dmixed_GSE)
            dscores_GSK = torch.bmm(dmixed_GSE, v_GLE[:, :end].transpose(1, 2))
            dscores_GSK.sub_(shared_GQ1[:, queries]).mul_(chance_GSK)
            torch.bmm(dscores_GSK, k_GLE[:, :end], out=dq_GQE[:, queries])
            dk_GLE[:, :end].baddbmm_(dscores_GSK.transpose(1, 2), q_GQE[:, queries])
        return _by_head(dq_GQE.mul_(ctx.scale), tokens)[None], dk_GLE[None], dv_GLE[None], None


def _by_token(x_HLE: Tensor, key_heads: int) -> Tensor:
    """(H, L, E) -> (G, Q, E), the R queries of a token side by side."""
    return x_HLE.unflatten(0, (key_heads, -1)).transpose(1, 2).flatten(1, 2).contiguous()


def _by_head(x_GQE: Tensor, tokens: int) -> Tensor:
    """(G, Q, E) -> (H, L, E)."""
    return x_GQE.unflatten(1, (tokens, -1)).transpose(1, 2).flatten(0, 1)


def _blocks(tokens: int) -> Iterator[tuple[int, int]]:
    """Begin and end of blocks of about equally many tokens."""
    step = -(-tokens // -(-tokens // BLOCK))
    return ((begin, min(tokens, begin + step)) for begin in range(0, tokens, step))


@cache
def _ahead(tokens: int, group: int) -> Tensor:
    """What hides from the R queries of each token the tokens behind it, (S, tokens)."""
    return torch.full((tokens, tokens), float("-inf")).triu(1).repeat_interleave(group, dim=0)

"""Causal attention inside samples that lie end to end on a CPU, forward and back.

What the mask would hide is not computed: a sample's queries come in blocks, each of which meets the keys up to its own end. Queries that
share a key head lie behind one another, token by token, so that each product reads its keys once for all of them; where none
do, products read and write the states where they lie. Times beside torch's kernel: `benchmarks/attention_speed.py`. The probabilities are kept
for the backward pass, which is why samples are short.

Shape legend: N tokens of all samples, H query heads, G key heads, R = H / G queries of a key head, E width of a head, Q = N R queries,
S queries of a block, K keys that a block meets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SHORTEST, LONGEST = 96, 512
"""Tokens of a sample. Below, calls cost more than they save; above, the probabilities take more memory than the states of a layer."""
BLOCK = 64
"""Tokens of a block, at most."""


def can_group(q_1HNE: Tensor, k_1GNE: Tensor, v_1GNE: Tensor) -> bool:
    """Whether these tensors are attended to faster here than by torch's own kernel, and as exactly."""
    return (
        not torch.compiler.is_compiling()
        and k_1GNE.shape[2] == q_1HNE.shape[2]
        and q_1HNE.shape[3] == v_1GNE.shape[3]
        and all(x.dtype == torch.float32 and x.device.type == "cpu" for x in (q_1HNE, k_1GNE, v_1GNE))
        and not torch.is_autocast_enabled("cpu")
    )


def grouped_attention(
    q_1HNE: Tensor, k_1GNE: Tensor, v_1GNE: Tensor, lengths: Sequence[int], scale: float | None = None
) -> Tensor:
    """Causal attention inside each sample, (1, N, H, E).

    Args:
        lengths: of the samples, in order; their sum is N.
        scale: of the scores; None: one over the root of E.
    """
    scale = q_1HNE.shape[3] ** -0.5 if scale is None else scale
    return _Grouped.apply(q_1HNE, k_1GNE, v_1GNE, tuple(lengths), scale)  # pyright: ignore[reportReturnType]


class _Block(NamedTuple):
    """Queries from one token to another, and the sample's first token, where their keys begin."""

    first: int
    begin: int
    end: int


class _Grouped(torch.autograd.Function):
    # Products are written to memory of their own and copied where they belong, because torch multiplies heads one by one where
    # a result does not lie in one piece.
    @staticmethod
    def forward(
        ctx: Any, q_1HNE: Tensor, k_1GNE: Tensor, v_1GNE: Tensor, lengths: tuple[int, ...], scale: float
    ) -> Tensor:
        k_GNE, v_GNE = k_1GNE[0], v_1GNE[0]
        group = q_1HNE.shape[1] // len(k_GNE)
        q_GQE = _by_token(q_1HNE[0], group)
        mixed_GQE = _empty(q_1HNE.shape[2], q_GQE, group)
        kept: list[Tensor] = []
        for first, begin, end in _blocks(lengths):
            queries = slice(begin * group, end * group)
            chance_GSK = torch.bmm(q_GQE[:, queries], k_GNE[:, first:end].transpose(1, 2))
            chance_GSK.mul_(scale)[:, :, begin - first :].add_(_ahead(end - begin, group))
            torch.softmax(chance_GSK, -1, out=chance_GSK)
            mixed_GQE[:, queries] = torch.bmm(chance_GSK, v_GNE[:, first:end])
            kept.append(chance_GSK)
        ctx.save_for_backward(q_GQE, k_GNE, v_GNE, mixed_GQE, *kept)
        ctx.lengths, ctx.scale, ctx.group = lengths, scale, group
        return _by_head(mixed_GQE, group).transpose(0, 1)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        q_GQE, k_GNE, v_GNE, mixed_GQE, *kept = ctx.saved_tensors
        group = ctx.group
        dmixed_GQE = _by_token(grads[0][0].transpose(0, 1), group)
        # The softmax's gradient is chance * (dchance - what all of a query's keys have of it together).
        shared_GQ1 = (dmixed_GQE * mixed_GQE).sum(-1, keepdim=True)
        dq_GQE = _empty(k_GNE.shape[1], q_GQE, group)
        dk_GNE, dv_GNE = (_empty(k_GNE.shape[1], x, 1) for x in (k_GNE, v_GNE))
        for (first, begin, end), chance_GSK in zip(_blocks(ctx.lengths), kept, strict=True):
            queries, keys, seen = slice(begin * group, end * group), slice(first, end), slice(first, begin)
            dmixed_GSE = dmixed_GQE[:, queries]
            dscores_GSK = torch.bmm(dmixed_GSE, v_GNE[:, keys].transpose(1, 2))
            dscores_GSK.sub_(shared_GQ1[:, queries]).mul_(chance_GSK).mul_(ctx.scale)
            dq_GQE[:, queries] = torch.bmm(dscores_GSK, k_GNE[:, keys])
            for d_GNE, d_GKE in ((dv_GNE, torch.bmm(chance_GSK.transpose(1, 2), dmixed_GSE)),
                                 (dk_GNE, torch.bmm(dscores_GSK.transpose(1, 2), q_GQE[:, queries]))):  # fmt: skip
                d_GNE[:, begin:end] = d_GKE[:, begin - first :]
                if begin > first:
                    d_GNE[:, seen].add_(d_GKE[:, : begin - first])
        return _by_head(dq_GQE, group)[None], dk_GNE[None], dv_GNE[None], None, None


def _empty(tokens: int, like_GQE: Tensor, group: int) -> Tensor:
    """(G, Q, E): where no queries share keys, the heads of a token side by side, as linear layers want them."""
    heads, _, width = like_GQE.shape
    if group == 1:
        return like_GQE.new_empty(tokens, heads, width).transpose(0, 1)
    return like_GQE.new_empty(heads, tokens * group, width)


def _by_token(x_HNE: Tensor, group: int) -> Tensor:
    """(H, N, E) -> (G, Q, E), the R queries of a token side by side."""
    return x_HNE if group == 1 else x_HNE.unflatten(0, (-1, group)).transpose(1, 2).flatten(1, 2).contiguous()


def _by_head(x_GQE: Tensor, group: int) -> Tensor:
    """(G, Q, E) -> (H, N, E)."""
    return x_GQE if group == 1 else x_GQE.unflatten(1, (-1, group)).transpose(1, 2).flatten(0, 1)


def _blocks(lengths: tuple[int, ...]) -> Iterator[_Block]:
    """Blocks of about equally many tokens of each sample."""
    first = 0
    for tokens in lengths:
        step = -(-tokens // -(-tokens // BLOCK))
        for begin in range(first, first + tokens, step):
            yield _Block(first, begin, min(first + tokens, begin + step))
        first += tokens


@cache
def _ahead(tokens: int, group: int) -> Tensor:
    """What hides from the R queries of each token the tokens behind it, (S, tokens)."""
    return torch.full((tokens, tokens), float("-inf")).triu(1).repeat_interleave(group, dim=0)

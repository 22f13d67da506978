"""Causal attention inside samples that lie end to end on a CPU, forward and back.

What the mask would hide is not computed: a sample's queries come in blocks, each of which meets the keys up to its own end. Queries that
share a key head lie behind one another, token by token, so that each product reads its keys once for all of them; where none
do, products read and write the states where they lie. Times beside torch's kernel: `benchmarks/attention_speed.py`. The probabilities are kept
for the backward pass, which is why samples are short.

Shape legend: N tokens of all samples, M those whose queries are given, H query heads, G key heads, R = H / G queries of a key head, E width of a
head, Q = M R queries, S queries of a block, K keys that a block meets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SHORTEST, LONGEST = 96, 512
"""Tokens of a sample. Below, calls cost more than they save; above, the probabilities take more memory than the states of a layer."""
BLOCK = 64
"""Tokens of a block, at most."""


def can_group(q_1HME: Tensor, k_1GNE: Tensor, v_1GNE: Tensor) -> bool:
    """Whether these tensors are attended to faster here than by torch's own kernel, and as exactly."""
    return (
        not torch.compiler.is_compiling()
        and q_1HME.shape[3] == v_1GNE.shape[3]
        and all(x.dtype == torch.float32 and x.device.type == "cpu" for x in (q_1HME, k_1GNE, v_1GNE))
        and not torch.is_autocast_enabled("cpu")
    )


def grouped_attention(
    q_1HME: Tensor, k_1GNE: Tensor, v_1GNE: Tensor, lengths: Sequence[int], scale: float | None = None, wanted_M: Tensor | None = None
) -> Tensor:
    """Causal attention inside each sample, (1, M, H, E).

    Args:
        lengths: of the samples, in order; their sum is N.
        scale: of the scores; None: one over the root of E.
        wanted_M: the tokens, in order, whose queries are given; None: all.
    """
    scale = q_1HME.shape[3] ** -0.5 if scale is None else scale
    group = q_1HME.shape[1] // k_1GNE.shape[1]
    blocks = _blocks(tuple(lengths), group) if wanted_M is None else _wanted_blocks(lengths, group, wanted_M)
    return _Grouped.apply(q_1HME, k_1GNE, v_1GNE, blocks, scale)  # pyright: ignore[reportReturnType]


class _Block(NamedTuple):
    """Queries, the keys that they meet, and what hides from each of them the last of these keys, (S, ...)."""

    queries: slice
    keys: slice
    hidden: Tensor


class _Grouped(torch.autograd.Function):
    # Products are written to memory of their own and copied where they belong, because torch multiplies heads one by one where
    # a result does not lie in one piece.
    @staticmethod
    def forward(ctx: Any, q_1HME: Tensor, k_1GNE: Tensor, v_1GNE: Tensor, blocks: list[_Block], scale: float) -> Tensor:
        k_GNE, v_GNE = k_1GNE[0], v_1GNE[0]
        group = q_1HME.shape[1] // len(k_GNE)
        q_GQE = _by_token(q_1HME[0], group)
        mixed_GQE = _empty(q_1HME.shape[2], q_GQE, group)
        kept: list[Tensor] = []
        for queries, keys, hidden in blocks:
            chance_GSK = torch.bmm(q_GQE[:, queries], k_GNE[:, keys].transpose(1, 2)).mul_(scale)
            chance_GSK[:, :, -hidden.shape[1] :].add_(hidden)
            torch.softmax(chance_GSK, -1, out=chance_GSK)
            mixed_GQE[:, queries] = torch.bmm(chance_GSK, v_GNE[:, keys])
            kept.append(chance_GSK)
        ctx.save_for_backward(q_GQE, k_GNE, v_GNE, mixed_GQE, *kept)
        ctx.blocks, ctx.scale, ctx.group = blocks, scale, group
        return _by_head(mixed_GQE, group).transpose(0, 1)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        q_GQE, k_GNE, v_GNE, mixed_GQE, *kept = ctx.saved_tensors
        group = ctx.group
        dmixed_GQE = _by_token(grads[0][0].transpose(0, 1), group)
        # The softmax's gradient is chance * (dchance - what all of a query's keys have of it together).
        shared_GQ1 = (dmixed_GQE * mixed_GQE).sum(-1, keepdim=True)
        dq_GQE = _empty(q_GQE.shape[1] // group, q_GQE, group)
        dk_GNE, dv_GNE = (_empty(k_GNE.shape[1], x, 1).zero_() for x in (k_GNE, v_GNE))
        for (queries, keys, _), chance_GSK in zip(ctx.blocks, kept, strict=True):
            dmixed_GSE = dmixed_GQE[:, queries]
            dscores_GSK = torch.bmm(dmixed_GSE, v_GNE[:, keys].transpose(1, 2))
            dscores_GSK.sub_(shared_GQ1[:, queries]).mul_(chance_GSK).mul_(ctx.scale)
            dq_GQE[:, queries] = torch.bmm(dscores_GSK, k_GNE[:, keys])
            dv_GNE[:, keys].add_(torch.bmm(chance_GSK.transpose(1, 2), dmixed_GSE))
            dk_GNE[:, keys].add_(torch.bmm(dscores_GSK.transpose(1, 2), q_GQE[:, queries]))
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


@lru_cache(16)  # All layers of a step ask for the same.
def _blocks(lengths: tuple[int, ...], group: int) -> list[_Block]:
    """Blocks of about equally many tokens of each sample."""
    found: list[_Block] = []
    first = 0
    for tokens in lengths:
        for begin, end in _shares(first, tokens):
            found.append(_Block(slice(begin * group, end * group), slice(first, end), _ahead(end - begin, group)))
        first += tokens
    return found


def _wanted_blocks(lengths: Sequence[int], group: int, wanted_M: Tensor) -> list[_Block]:
    """The same of the wanted tokens of each sample, whose keys reach to the last of them."""
    ends = torch.tensor(lengths).cumsum(0)
    counts = torch.searchsorted(wanted_M, ends).diff(prepend=torch.zeros(1, dtype=torch.long)).tolist()
    found: list[_Block] = []
    at = 0
    for count, last, tokens in zip(counts, ends.tolist(), lengths, strict=True):
        first = last - tokens
        for begin, end in _shares(at, count):
            places_S = wanted_M[begin:end] - first
            behind_SK = torch.arange(int(places_S[-1]) + 1) > places_S[:, None]
            hidden_SK = torch.zeros(behind_SK.shape).masked_fill_(behind_SK, float("-inf")).repeat_interleave(group, dim=0)
            found.append(_Block(slice(begin * group, end * group), slice(first, first + behind_SK.shape[1]), hidden_SK))
        at += count
    return found


def _shares(first: int, tokens: int) -> Iterator[tuple[int, int]]:
    """Begin and end of as many about equal shares as are needed, behind `first`."""
    step = -(-tokens // max(1, -(-tokens // BLOCK)))
    return ((begin, min(first + tokens, begin + step)) for begin in range(first, first + tokens, max(1, step)))


@cache
def _ahead(tokens: int, group: int) -> Tensor:
    """What hides from the R queries of each token the tokens behind it, (S, tokens)."""
    return torch.full((tokens, tokens), float("-inf")).triu(1).repeat_interleave(group, dim=0)

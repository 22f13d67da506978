"""Causal attention of samples that lie end to end, without padding and without a mask over all pairs.

Packed rows are laid behind each other as one row of real tokens. Every sample then attends to itself alone, so
that the work is the sum of the samples' own triangles instead of whole squares of rows.

Shape legend: B rows, T tokens of a row, N real tokens of all rows, K those whose states are worked out where samples share some, H query heads,
G key heads, E width of a head, L tokens of a sample, M wanted tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count, groupby
from operator import itemgetter

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.nn.attention import segment_mask
from sensorium.nn.grouped_attention import LONGEST, SHORTEST, can_group, grouped_attention
from sensorium.nn.shared_rows import Shared
from sensorium.nn.varlen_attention import can_varlen, varlen_attention


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the samples of packed rows lie among their real tokens."""

    real_N: Tensor
    """Places of the real tokens in the rows laid end to end."""
    lengths: tuple[int, ...]
    """Of the samples, in order; their sum is N."""
    masks: tuple[Tensor | None, ...]
    """Per sample (1, 1, L, L), True where allowed; None: causal."""
    shape: tuple[int, int]
    """Rows and tokens of the packed rows."""
    wanted_M: Tensor | None = None
    """Places among the real tokens whose last states are asked for; None: all."""
    bounds_S1: Tensor | None = None
    """On a GPU where all samples are causal: where they begin and the last one ends, for the kernel; else None."""
    shared: Shared | None = None
    """States that samples have in common; None: each token has its own, and K is N."""

    @property
    def asked_M(self) -> Tensor | None:
        """Places of the wanted tokens among those whose states are worked out."""
        return self.wanted_M if self.wanted_M is None or self.shared is None else self.shared.of_N[self.wanted_M]

    def flat(self, x_BTD: Tensor) -> Tensor:
        """(B, T, ...) -> (1, N, ...), real tokens alone."""
        flat = x_BTD.flatten(0, 1)
        return (flat if len(flat) == len(self.real_N) else flat[self.real_N])[None]

    def rows(self, x_1ND: Tensor) -> Tensor:
        """(1, N, D), or (1, M, D) of the wanted ones -> (B, T, D), zero elsewhere."""
        count = self.shape[0] * self.shape[1]
        flat = x_1ND[0]
        if len(flat) < count:
            places = self.real_N if self.wanted_M is None else self.real_N[self.wanted_M]
            flat = flat.new_zeros(count, flat.shape[1]).index_copy(0, places, flat)
        return flat.unflatten(0, self.shape)


def layout_of(segments_BT: Tensor, branches_BT: Tensor | None = None, wanted_BT: Tensor | None = None) -> Layout:
    """The layout of packed rows.

    Args:
        segments_BT: which sample of its row a token belongs to, from 1; 0 is padding.
        branches_BT: which of its sample's separate turns a token belongs to; all see 0.
        wanted_BT: True where last states are asked for; None: everywhere.
    """
    rows, width = segments_BT.shape
    # Samples of different rows must not look alike where they meet.
    numbers_N = (segments_BT + torch.arange(rows, device=segments_BT.device)[:, None] * (width + 1)).flatten()
    real_N = (segments_BT.flatten() > 0).nonzero()[:, 0]
    _, counts = torch.unique_consecutive(numbers_N[real_N], return_counts=True)
    lengths = tuple(counts.tolist())
    masks: list[Tensor | None] = [None] * len(lengths)
    if branches_BT is not None and bool(branches_BT.any()):
        for i, branches_L in enumerate(branches_BT.flatten()[real_N].split(lengths)):
            if bool(branches_L.any()):
                masks[i] = segment_mask(torch.ones_like(branches_L)[None], branches_L[None])
    wanted_M = None if wanted_BT is None else wanted_BT.flatten()[real_N].nonzero()[:, 0]
    bounds_S1 = None
    if segments_BT.is_cuda and all(mask is None for mask in masks):
        bounds_S1 = F.pad(counts.cumsum(0, dtype=torch.int32), (1, 0))
    return Layout(real_N, lengths, tuple(masks), (rows, width), wanted_M, bounds_S1)


def attend(
    q_1HNE: Tensor, k_1GNE: Tensor, v_1GNE: Tensor, layout: Layout,
    *, scale: float | None = None, dropout: float = 0.0,
) -> Tensor:  # fmt: skip
    """Attention inside every sample, (1, N, H, E); of states that samples share, (1, K, H, E) of (1, H, K, E)."""
    if layout.shared is not None:
        q_1HNE, k_1GNE, v_1GNE = (layout.shared.spread_heads(x) for x in (q_1HNE, k_1GNE, v_1GNE))
        return layout.shared.pick(attend(q_1HNE, k_1GNE, v_1GNE, replace(layout, shared=None), scale=scale, dropout=dropout))
    if layout.bounds_S1 is not None and not dropout and can_varlen(v_1GNE, v_1GNE.shape[-1]):
        return varlen_attention(q_1HNE, k_1GNE, v_1GNE, layout.bounds_S1, max(layout.lengths), scale)
    if not dropout and can_group(q_1HNE, k_1GNE, v_1GNE):
        kinds = [mask is None and SHORTEST <= tokens <= LONGEST for tokens, mask in zip(layout.lengths, layout.masks, strict=True)]
    else:
        kinds = [False] * len(layout.lengths)
    runs = [(kind, [i for _, i in run]) for kind, run in groupby(zip(kinds, count()), itemgetter(0))]
    # One split and one join, whose backward passes are the same; a slice for each sample would
    # fill a whole gradient with zeros for each.
    sizes = [sum(layout.lengths[i] for i in run) for _, run in runs]
    mixed: list[Tensor] = []
    for (kind, run), q, k, v in zip(runs, *(x.split(sizes, dim=2) for x in (q_1HNE, k_1GNE, v_1GNE)), strict=True):
        lengths = [layout.lengths[i] for i in run]
        if kind:
            mixed.append(grouped_attention(q, k, v, lengths, scale))
            continue
        parts = zip(*(x.split(lengths, dim=2) for x in (q, k, v)), [layout.masks[i] for i in run], strict=True)
        mixed += [_attend_one(*part, scale=scale, dropout=dropout) for part in parts]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)


def attend_wanted(q_1HME: Tensor, k_1GNE: Tensor, v_1GNE: Tensor, layout: Layout, *, scale: float | None = None) -> Tensor:
    """The same of the wanted tokens' queries alone, (1, M, H, E), where `can_attend_wanted`."""
    if layout.shared is not None:
        k_1GNE, v_1GNE = layout.shared.spread_heads(k_1GNE), layout.shared.spread_heads(v_1GNE)
    return grouped_attention(q_1HME, k_1GNE, v_1GNE, layout.lengths, scale, layout.wanted_M)


def can_attend_wanted(layout: Layout) -> bool:
    """Whether samples are short, and all of them causal."""
    return layout.wanted_M is not None and max(layout.lengths, default=0) <= LONGEST and all(mask is None for mask in layout.masks)


def _attend_one(
    q_1HLE: Tensor, k_1GLE: Tensor, v_1GLE: Tensor, mask: Tensor | None, *, scale: float | None, dropout: float
) -> Tensor:
    """Attention inside one sample, (1, L, H, E)."""
    return F.scaled_dot_product_attention(
        q_1HLE, k_1GLE, v_1GLE, attn_mask=mask, is_causal=mask is None, scale=scale, dropout_p=dropout,
        enable_gqa=q_1HLE.shape[1] != k_1GLE.shape[1],
    ).transpose(1, 2)  # fmt: skip

"""Beginnings that samples of packed rows have in common: a system prompt, and what else stands in front of the picture.

A decoder's states depend on a token and on what stands before it, and on nothing else. So what begins alike is worked out once for all
samples of a step: exact, gradients included, which the samples' own sum up to. A prompt of 25 tokens in samples of 120 is a fifth of all work in layers.

Shape legend: B rows, T tokens of a row, N real tokens of all rows, D width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from sensorium.core.batch import Batch
from sensorium.nn.segment_attention import Layout
from sensorium.nn.shared_rows import Shared

LONGEST = 512
"""Tokens of a sample that are looked at."""
WORTH = 32
"""Of this many tokens one must be saved at least."""


def share_beginnings(lm: nn.Module, layout: Layout, embeds_BTD: Tensor, batch: Batch) -> Layout:
    """The layout, with what is shared where sharing is exact and worth it.

    Without gradients nothing is shared: scores stay transformers' own to the last bit. Where the model drops states at random, or somebody listens
    inside, each sample has its own. On a GPU, where starting kernels is what costs, it has not been measured.
    """
    if embeds_BTD.device.type != "cpu" or not torch.is_grad_enabled() or len(layout.lengths) < 2 or any(m is not None for m in layout.masks) or _acts_on_its_own(lm):
        return layout
    ids_N, positions_N, embeds_ND = (layout.flat(x)[0] for x in (batch.input_ids_BT, batch.positions_BT, embeds_BTD))
    # Media are each sample's own, and so is what an answer learns from.
    own_BT = batch.in_front_of_learned() | batch.learn_BT
    for slots_BT in batch.slots.values():
        own_BT = own_BT | slots_BT
    owner_N = owners(ids_N.tolist(), layout.flat(own_BT)[0].tolist(), layout.lengths)
    saved = owner_N != torch.arange(len(owner_N))
    if int(saved.sum()) * WORTH < len(owner_N):
        return layout
    others_S, owners_S = saved.nonzero()[:, 0], owner_N[saved]
    # What is fed in decides, not what it is called: whatever else changes embeddings is thereby allowed for.
    if not torch.equal(positions_N[others_S], positions_N[owners_S]) or not torch.equal(embeds_ND.detach()[others_S], embeds_ND.detach()[owners_S]):
        return layout
    return replace(layout, shared=Shared.of(owner_N))


def owners(ids_N: list[int], own_N: list[bool], lengths: tuple[int, ...]) -> Tensor:
    """For each token the first one that is the same and stands behind the same tokens of its sample.

    Args:
        own_N: True at tokens from which on a sample goes its own way.
    """
    found_N = list(range(len(ids_N)))
    known: dict[tuple[int, int], int] = {}
    begin = 0
    for length in lengths:
        before = -1
        for place in range(begin, begin + min(length, LONGEST)):
            if own_N[place]:
                break
            before = found_N[place] = known.setdefault((before, ids_N[place]), place)
        begin += length
    return torch.tensor(found_N, dtype=torch.long)


def _acts_on_its_own(lm: nn.Module) -> bool:
    """Whether states are left out at random now, or hooks do what nobody here knows."""
    drops = lm.training and bool(getattr(getattr(lm, "config", None), "attention_dropout", 0.0))
    return drops or any(
        part._forward_hooks or part._forward_pre_hooks or (isinstance(part, nn.Dropout) and part.p > 0 and part.training) for part in lm.modules()
    )

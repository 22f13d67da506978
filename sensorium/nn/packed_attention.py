"""Attention inside groups of tokens that lie end to end, without padding and without a mask over
all pairs (NaViT's packing, arXiv:2307.06304).

Shape legend: N tokens, H heads, E width of a head, G groups of one length, L tokens of a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.batch import Grid


@dataclass(frozen=True, slots=True)
class Groups:
    """Which tokens attend to each other: for each length of a group, the tokens (G, L) of all
    groups that are so long. Every token is in exactly one group; `back_N` is its place among all
    members."""

    members: tuple[Tensor, ...]
    back_N: Tensor


def whole_pictures(
    grids: tuple[Grid, ...], device: torch.device, *, extra: bool = False
) -> Groups:
    """Each picture's patches attend to one another.

    Args:
        extra: each picture has one more token; these stand behind all patches, in order.
    """
    groups = [map_HW.flatten() for map_HW in _maps(grids, device)]
    if extra:
        first = sum(len(group) for group in groups)
        more = torch.arange(first, first + len(groups), device=device).split(1)
        groups = [torch.cat(both) for both in zip(groups, more, strict=True)]
    return _by_length(groups)


def windows(grids: tuple[Grid, ...], side: int, device: torch.device) -> Groups:
    """Only patches of one square of `side` x `side` do, counted from the picture's top left corner;
    squares on the right and lower border are as large as what is left."""
    groups: list[Tensor] = []
    for map_HW in _maps(grids, device):
        for band in map_HW.split(side, dim=0):
            groups += [square.flatten() for square in band.split(side, dim=1)]
    return _by_length(groups)


def _maps(grids: tuple[Grid, ...], device: torch.device) -> list[Tensor]:
    """The tokens' numbers, as they lie in each picture."""
    numbers_N = torch.arange(sum(g.h * g.w for g in grids), device=device)
    parts = numbers_N.split([g.h * g.w for g in grids])
    return [part.view(grid.h, grid.w) for part, grid in zip(parts, grids, strict=True)]


def _by_length(groups: list[Tensor]) -> Groups:
    lengths = dict.fromkeys(len(group) for group in groups)
    members = tuple(torch.stack([g for g in groups if len(g) == n]) for n in lengths)
    return Groups(members, torch.cat([m.flatten() for m in members]).argsort())


def attend_in_groups(q_NHE: Tensor, k_NHE: Tensor, v_NHE: Tensor, groups: Groups) -> Tensor:
    """(N, H, E): every token's mixture of the values in its group."""
    mixed: list[Tensor] = []
    for members_GL in groups.members:
        q, k, v = (x[members_GL].transpose(1, 2) for x in (q_NHE, k_NHE, v_NHE))
        mixed_GHLE = F.scaled_dot_product_attention(q, k, v)
        mixed.append(mixed_GHLE.transpose(1, 2).flatten(0, 1))
    return torch.cat(mixed)[groups.back_N]

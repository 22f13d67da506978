"""Between the packed form (N, D) and equal-length batches (M, L, D).

Shape legend: N tokens laid end to end, M items, L tokens of an item, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sensorium.core.batch import Features, Grid


def map_items(
    features: Features,
    apply: Callable[[Tensor, Grid], Tensor],
    out_grid: Callable[[Grid], Grid],
) -> Features:
    """Apply a batched function to items of equal layout together.

    Items keep their order; layouts that differ are processed in separate groups, so no
    item is ever padded.

    Args:
        apply: (M, L, D) and the shared grid -> (M, L', D').
        out_grid: the layout that `apply` yields.
    """
    grids = tuple(out_grid(grid) for grid in features.grids)
    shared = features.uniform()
    if shared is not None:
        items_MLD = features.values_ND.reshape(len(features.grids), shared.tokens, -1)
        return Features(apply(items_MLD, shared).flatten(0, 1), grids)
    pieces: list[Tensor | None] = [None] * len(features.grids)
    parts = torch.split(features.values_ND, features.lengths)
    for grid in dict.fromkeys(features.grids):
        members = [i for i, other in enumerate(features.grids) if other == grid]
        for index, out_LD in zip(
            members, apply(torch.stack([parts[i] for i in members]), grid), strict=True
        ):
            pieces[index] = out_LD
    return Features(_cat(pieces), grids)


def _cat(pieces: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([piece for piece in pieces if piece is not None])

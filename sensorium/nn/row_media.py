"""Tokens of media laid by row, and which of them a text token sees.

Shape legend: B rows, T tokens, K keys of a row (padded), E their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.batch import Features


@dataclass(frozen=True, slots=True)
class RowTokens:
    """Media tokens by row, padded: `owner_BK` is the 1-based medium of each key, 0 for
    padding, counted over the whole batch."""

    tokens_BKE: Tensor
    owner_BK: Tensor

    def seen_by(self, media_index_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The mask of attention, (B, 1, T, K), and which tokens see anything, (B, T, 1).

        A token that sees nothing attends to everything, because a softmax over no keys is not a
        number; what it gets is to be zeroed.
        """
        sees_BTK = media_index_BT[:, :, None] == self.owner_BK[:, None, :]
        sees_BTK &= self.owner_BK[:, None, :] > 0
        sees_BT1 = sees_BTK.any(dim=-1, keepdim=True)
        return (sees_BTK | ~sees_BT1)[:, None], sees_BT1


def tokens_by_row(found: Sequence[tuple[Sequence[int], Features]], rows: int) -> RowTokens:
    """Lay media side by side.

    Args:
        found: for each kind, the row of each medium and the features; not empty.
        rows: B.
    """
    per_row: list[list[tuple[int, Tensor]]] = [[] for _ in range(rows)]
    number = 0
    for where, feats in found:
        for row, piece in zip(where, torch.split(feats.values_ND, feats.lengths), strict=True):
            number += 1
            per_row[row].append((number, piece))
    some = found[0][1].values_ND
    longest = max(sum(len(piece) for _, piece in row) for row in per_row)
    owner_BK = torch.zeros(rows, longest, dtype=torch.long, device=some.device)
    padded: list[Tensor] = []
    for b, row in enumerate(per_row):
        tokens = torch.cat([piece for _, piece in row]) if row else some[:0]
        padded.append(F.pad(tokens, (0, 0, 0, longest - len(tokens))))
        start = 0
        for index, piece in row:
            owner_BK[b, start : start + len(piece)] = index
            start += len(piece)
    return RowTokens(torch.stack(padded), owner_BK)

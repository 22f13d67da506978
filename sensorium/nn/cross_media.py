"""The media of each row laid side by side, for layers whose tokens attend to them.

Shape legend: B rows, T tokens, K keys of a row (padded), E media width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.batch import Features, MediaBatch


@dataclass(frozen=True, slots=True)
class MediaContext:
    """Media tokens by row, padded: `owner_BK` is the 1-based medium of each key, 0 for
    padding, counted over the whole batch."""

    media_BKE: Tensor
    owner_BK: Tensor

    def seen_by(self, media_index_BT: Tensor) -> Tensor:
        """Which keys each token sees, (B, T, K): those of the most recent medium before it."""
        sees_BTK = media_index_BT[:, :, None] == self.owner_BK[:, None, :]
        return sees_BTK & (self.owner_BK[:, None, :] > 0)


@dataclass(frozen=True, slots=True)
class CrossMedia:
    """What a language model's own cross-attention reads."""

    media_BKE: Tensor
    sees_BTK: Tensor


def lay_media(
    features: Mapping[str, Features], media: Mapping[str, MediaBatch], nothing_BKE: Tensor
) -> MediaContext:
    """Lay the media tokens of each row side by side.

    Args:
        nothing_BKE: what stands for the media of a batch that has none.
    """
    rows = len(nothing_BKE)
    per_row: list[list[tuple[int, Tensor]]] = [[] for _ in range(rows)]
    number = 0
    for kind, feats in features.items():
        pieces = torch.split(feats.values_ND, feats.lengths)
        for row, piece in zip(media[kind].rows, pieces, strict=True):
            number += 1
            per_row[row].append((number, piece))
    if number == 0:
        shape = nothing_BKE.shape[:2]
        return MediaContext(nothing_BKE, torch.zeros(shape, dtype=torch.long, device=nothing_BKE.device))
    some = next(iter(features.values())).values_ND
    longest = max(sum(len(p) for _, p in row) for row in per_row)
    owner_BK = torch.zeros(rows, longest, dtype=torch.long, device=some.device)
    padded: list[Tensor] = []
    for b, row in enumerate(per_row):
        tokens = torch.cat([p for _, p in row]) if row else some[:0]
        padded.append(F.pad(tokens, (0, 0, 0, longest - len(tokens))))
        start = 0
        for index, piece in row:
            owner_BK[b, start : start + len(piece)] = index
            start += len(piece)
    return MediaContext(torch.stack(padded), owner_BK)

"""A picture as one vector: the mean of what its encoder makes of it.

Shape legend: M pictures, N features laid end to end, V width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sensorium.core.batch import MediaBatch
from sensorium.model.multimodal import MultimodalModel


def pooled(model: MultimodalModel, media: MediaBatch, kind: str = "image") -> Tensor:
    """The mean of each picture's features, tiles included, (M, V)."""
    encoded = model.encode(kind, media)
    items = encoded.values_ND.split(encoded.lengths)
    rows: list[Tensor] = []
    start = 0
    for plan in media.plans:
        rows.append(torch.cat(items[start : start + plan.images]).float().mean(dim=0))
        start += plan.images
    return torch.stack(rows)

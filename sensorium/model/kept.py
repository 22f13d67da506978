"""The encoder's share of a batch: what a feature store found is not computed again.

Shape legend: N features laid end to end, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn

from sensorium.core.batch import Features, Grid, Kept, MediaBatch
from sensorium.core.shelf import Shelf


def run_encoder(encoder: nn.Module, kind: str, media: MediaBatch) -> Features:
    """Encoder features of all inputs, tiles included."""
    if media.patches is not None:
        return encoder(media.pixels_NCHW, media.patches)
    # What takes clips is told of what.
    return encoder(media.pixels_NCHW) if kind == "image" else encoder(media.pixels_NCHW, kind)


def encode_kept(encoder: nn.Module, kind: str, media: MediaBatch, shelf: Shelf | None) -> Features:
    """The same, of pictures some of which a store may have found; what is made here is handed to the store.

    Without any find the encoder sees the whole batch, as it would without a store.
    """
    kept = media.kept
    missing = [k for k, one in enumerate(kept) if one is None or one.features is None]
    if len(missing) == len(kept):
        with torch.no_grad():
            made = run_encoder(encoder, kind, media)
        return _handed_over(kind, media, made, shelf)
    made = None
    if missing:
        plans = tuple(media.plans[k] for k in missing)
        rest = replace(media, plans=plans, kept=tuple(kept[k] for k in missing))
        with torch.no_grad():
            made = _handed_over(kind, rest, run_encoder(encoder, kind, rest), shelf)
    return _laid_together(media, made)


def _handed_over(kind: str, media: MediaBatch, made: Features, shelf: Shelf | None) -> Features:
    return made if shelf is None or not shelf.holds(kind) else shelf.keep(kind, media, made)


def _laid_together(media: MediaBatch, made: Features | None) -> Features:
    """Found and made features in the order of the pictures."""
    values: list[Tensor] = []
    grids: list[Grid] = []
    fresh = iter(()) if made is None else _items(made)
    device = media.pixels_NCHW.device
    for plan, one in zip(media.plans, media.kept, strict=True):
        if one is not None and one.features is not None:
            values.append(one.features.values_ND.to(device, non_blocking=True))
            grids += one.features.grids
            continue
        mine = list(islice(fresh, plan.images))
        values += [values_ND for values_ND, _ in mine]
        grids += [grid for _, grid in mine]
    return Features(torch.cat(values), tuple(grids))


def _items(features: Features) -> Iterator[tuple[Tensor, Grid]]:
    """Each item's values and grid."""
    yield from zip(features.values_ND.split(features.lengths), features.grids, strict=True)


def by_picture(media: MediaBatch, features: Features) -> Iterator[tuple[Kept, Features]]:
    """The features of each picture that a store is to know, with its entry.

    Args:
        media: the pictures that the features are of, and no other ones.
    """
    start = item = 0
    for plan, one in zip(media.plans, media.kept, strict=True):
        grids = features.grids[item : item + plan.images]
        stop = start + sum(grid.tokens for grid in grids)
        if one is not None:
            yield one, Features(features.values_ND[start:stop], grids)
        start, item = stop, item + plan.images

"""Examples -> Batch: one or several Examples a row, padded on the right.

Shape legend: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from sensorium.core.batch import Batch, Example, Features, Kept, MediaBatch, Wanted
from sensorium.processing.finish import join_pixels


def collate(rows: Sequence[Sequence[Example]], pad_id: int, *, pad_left: bool = False) -> Batch:
    """Lay Examples into rows; media are numbered across the batch in reading order.

    Args:
        pad_left: pad in front, so that all rows end together, as generation wants.
    """
    length = max(sum(len(e) for e in row) for row in rows)
    shape = (len(rows), length)
    # All Examples of a model have three places a token, or none has.
    has_places = any(example.places for row in rows for example in row)
    ids, learn, index = (np.full(shape, fill, dtype=kind) for fill, kind in ((pad_id, np.int64), (False, np.bool_), (0, np.int64)))
    segments, positions, branches = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    places = np.zeros((3, *shape), dtype=np.int64) if has_places else None
    slots: dict[str, np.ndarray[Any, Any]] = {}
    parts: dict[str, list[tuple[int, MediaBatch]]] = {}
    media_count = 0
    names: list[str] = []
    for b, row in enumerate(rows):
        start = length - sum(len(e) for e in row) if pad_left else 0
        for number, example in enumerate(row, start=1):
            stop = start + len(example)
            ids[b, start:stop] = example.input_ids
            learn[b, start:stop] = example.learn
            # The first token of a sample has nothing before it that could predict it.
            learn[b, start] = False
            segments[b, start:stop] = number
            if example.branches:
                branches[b, start:stop] = example.branches
            positions[b, start:stop] = _positions(example) - _held(example)
            if places is not None:
                places[:, b, start:stop] = np.asarray(example.places).T
            if example.media_index:
                own = np.asarray(example.media_index)
                index[b, start:stop] = np.where(own > 0, own + media_count, 0)
            for kind, media in example.media.items():
                parts.setdefault(kind, []).append((b, media))
                mask = slots.setdefault(kind, np.zeros(shape, dtype=np.bool_))
                mask[b, [start + p for p in example.slots[kind]]] = True
                media_count += len(media.plans)
            names.append(example.id)
            start = stop
    segments_BT = torch.from_numpy(segments)
    return Batch(
        input_ids_BT=torch.from_numpy(ids),
        learn_BT=torch.from_numpy(learn),
        segments_BT=segments_BT,
        positions_BT=torch.from_numpy(positions),
        branches_BT=torch.from_numpy(branches),
        slots={kind: torch.from_numpy(mask) for kind, mask in slots.items()},
        media={kind: _join(found) for kind, found in parts.items()},
        media_index_BT=torch.from_numpy(index),
        packed=any(len(row) > 1 or any(e.branches for e in row) for row in rows),
        ids=names,
        places_3BT=None if places is None else torch.from_numpy(places),
        padded_left=pad_left and any(sum(len(e) for e in row) < length for row in rows),
        loss_weights_BT=_loss_weights(rows, segments_BT),
        loss_count=_loss_count(rows),
        wanted=_wanted(rows, segments_BT),
    )


def _positions(example: Example) -> np.ndarray[Any, Any]:
    """Places in one Example: every branch counts on from the end of what they share."""
    if not example.branches:
        return np.arange(len(example))
    branches_T = np.asarray(example.branches)
    shared = (branches_T == 0).sum()
    # Branches stand in order, so that a search for a token's branch finds its first token.
    offsets_T = np.arange(len(branches_T)) - np.searchsorted(branches_T, branches_T)
    return offsets_T + np.where(branches_T > 0, shared, 0)


def _loss_weights(rows: Sequence[Sequence[Example]], segments_BT: torch.Tensor) -> torch.Tensor | None:
    """What each token's loss is multiplied by; None where that is 1 for all."""
    if all(example.loss_weight == 1 for row in rows for example in row):
        return None
    weights_BT = torch.ones(segments_BT.shape)
    for weights_T, segments_T, row in zip(weights_BT, segments_BT, rows, strict=True):
        for number, example in enumerate(row, start=1):
            weights_T[segments_T == number] = example.loss_weight
    return weights_BT


def _wanted(rows: Sequence[Sequence[Example]], segments_BT: torch.Tensor) -> tuple[Wanted, ...]:
    """The media that answers hold, by their places in the rows."""
    found: list[Wanted] = []
    for b, row in enumerate(rows):
        if not any(example.wanted for example in row):
            continue
        segments_T = cast(list[int], segments_BT[b].tolist())
        for number, example in enumerate(row, start=1):
            if example.wanted:
                start = segments_T.index(number)
                found += [replace(one, row=b, start=start + one.start) for one in example.wanted]
    return tuple(found)


def _loss_count(rows: Sequence[Sequence[Example]]) -> int | None:
    """Samples that are learned from; None where tokens count."""
    counts = [e.loss_count for row in rows for e in row if e.loss_count is not None]
    return round(sum(counts)) if counts else None


def _held(example: Example) -> np.ndarray[Any, Any] | int:
    """Of each token, how many up to it have not moved on."""
    if not example.held:
        return 0
    stays_T = np.zeros(len(example), dtype=np.int64)
    stays_T[example.held] = 1
    return stays_T.cumsum()


def _join(found: list[tuple[int, MediaBatch]]) -> MediaBatch:
    cached = [media.features for _, media in found if media.features is not None]
    features = None
    if len(cached) == len(found):
        features = Features(
            torch.cat([f.values_ND for f in cached]), tuple(g for f in cached for g in f.grids)
        )
    details = [media.details_NCHW for _, media in found if media.details_NCHW is not None]
    return MediaBatch(
        details_NCHW=torch.cat(details) if details else None,
        pixels_NCHW=join_pixels([media.pixels_NCHW for _, media in found]),
        plans=tuple(plan for _, media in found for plan in media.plans),
        rows=tuple(row for row, media in found for _ in media.plans),
        features=features,
        texts=tuple(text for _, media in found for text in media.texts),
        kept=_kept(media for _, media in found),
    )


def _kept(found: Iterable[MediaBatch]) -> tuple[Kept | None, ...]:
    """What a feature store knows of each picture, None of those that were made without one."""
    kept = [one for media in found for one in media.kept or (None,) * len(media.plans)]
    return tuple(kept) if any(kept) else ()

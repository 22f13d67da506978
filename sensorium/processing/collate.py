"""Examples -> Batch: one or several Examples a row, padded on the right.

Shape legend: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

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
    ids = torch.full(shape, pad_id, dtype=torch.long)
    learn = torch.zeros(shape, dtype=torch.bool)
    segments = torch.zeros(shape, dtype=torch.long)
    positions = torch.zeros(shape, dtype=torch.long)
    branches = torch.zeros(shape, dtype=torch.long)
    # All Examples of a model have three places a token, or none has.
    has_places = any(example.places for row in rows for example in row)
    places = torch.zeros((3, *shape), dtype=torch.long) if has_places else None
    media_index = torch.zeros(shape, dtype=torch.long)
    slots: dict[str, torch.Tensor] = {}
    parts: dict[str, list[tuple[int, MediaBatch]]] = {}
    media_count = 0
    names: list[str] = []
    for b, row in enumerate(rows):
        start = length - sum(len(e) for e in row) if pad_left else 0
        for number, example in enumerate(row, start=1):
            stop = start + len(example)
            ids[b, start:stop] = torch.tensor(example.input_ids)
            learn[b, start:stop] = torch.tensor(example.learn)
            # The first token of a sample has nothing before it that could predict it.
            learn[b, start] = False
            segments[b, start:stop] = number
            if example.branches:
                branches[b, start:stop] = torch.tensor(example.branches)
            positions[b, start:stop] = _positions(branches[b, start:stop]) - _held(example)
            if places is not None:
                places[:, b, start:stop] = torch.tensor(example.places).T
            index = torch.tensor(example.media_index)
            media_index[b, start:stop] = torch.where(index > 0, index + media_count, 0)
            for kind, media in example.media.items():
                parts.setdefault(kind, []).append((b, media))
                mask = slots.setdefault(kind, torch.zeros(shape, dtype=torch.bool))
                mask[b, [start + p for p in example.slots[kind]]] = True
                media_count += len(media.plans)
            names.append(example.id)
            start = stop
    return Batch(
        input_ids_BT=ids,
        learn_BT=learn,
        segments_BT=segments,
        positions_BT=positions,
        branches_BT=branches,
        slots=slots,
        media={kind: _join(found) for kind, found in parts.items()},
        media_index_BT=media_index,
        packed=any(len(row) > 1 or any(e.branches for e in row) for row in rows),
        ids=names,
        places_3BT=places,
        padded_left=pad_left and any(sum(len(e) for e in row) < length for row in rows),
        loss_weights_BT=_loss_weights(rows, segments),
        loss_count=_loss_count(rows),
        wanted=_wanted(rows, segments),
    )


def _positions(branches_T: torch.Tensor) -> torch.Tensor:
    """Places in one Example: every branch counts on from the end of what they share."""
    shared = (branches_T == 0).sum()
    # Branches stand in order, so that a search for a token's branch finds its first token.
    offsets_T = torch.arange(len(branches_T)) - torch.searchsorted(branches_T, branches_T)
    return offsets_T + torch.where(branches_T > 0, shared, 0)


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
        for number, example in enumerate(row, start=1):
            if example.wanted:
                start = int((segments_BT[b] == number).nonzero()[0])
                found += [replace(one, row=b, start=start + one.start) for one in example.wanted]
    return tuple(found)


def _loss_count(rows: Sequence[Sequence[Example]]) -> int | None:
    """Samples that are learned from; None where tokens count."""
    counts = [e.loss_count for row in rows for e in row if e.loss_count is not None]
    return round(sum(counts)) if counts else None


def _held(example: Example) -> torch.Tensor:
    """Of each token, how many up to it have not moved on."""
    stays_T = torch.zeros(len(example), dtype=torch.long)
    stays_T[example.held] = 1
    return stays_T.cumsum(0)


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

"""Some rows of a Batch as a Batch of its own, so that a step may take its rows in several passes.

Shape legend: B rows, T tokens, N features or pixels laid end to end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sensorium.core.batch import Batch, Features, MediaBatch


def split_rows(batch: Batch, rows: int) -> Iterator[Batch]:
    """Batches of at most so many rows, in order; the batch itself where it has no more."""
    total = len(batch.input_ids_BT)
    if total <= rows:
        yield batch
        return
    for start in range(0, total, rows):
        yield rows_of(batch, start, min(total, start + rows))


def rows_of(batch: Batch, start: int, stop: int) -> Batch:
    """The rows from `start` up to `stop` with their media. Columns that are padding in all of them stay.

    `loss_count` goes with the first row: over all parts it is what it was.
    """
    media = {kind: part for kind, whole in batch.media.items() if (part := _media_of(whole, start, stop)).plans}
    earlier = sum(row < start for whole in batch.media.values() for row in whole.rows)
    index_BT = batch.media_index_BT[start:stop]
    segments_BT = batch.segments_BT[start:stop]
    names = _names_before(batch, start), _names_before(batch, stop)
    return replace(
        batch,
        input_ids_BT=batch.input_ids_BT[start:stop],
        learn_BT=batch.learn_BT[start:stop],
        segments_BT=segments_BT,
        positions_BT=batch.positions_BT[start:stop],
        branches_BT=batch.branches_BT[start:stop],
        slots={kind: batch.slots[kind][start:stop] for kind in media},
        media=media,
        # Media are numbered across the batch in reading order; 0 is before the first.
        media_index_BT=(index_BT - earlier).clamp(min=0),
        ids=batch.ids[names[0] : names[1]],
        places_3BT=None if batch.places_3BT is None else batch.places_3BT[:, start:stop],
        loss_weights_BT=None if batch.loss_weights_BT is None else batch.loss_weights_BT[start:stop],
        wanted=tuple(replace(one, row=one.row - start) for one in batch.wanted if start <= one.row < stop),
        loss_count=batch.loss_count if batch.loss_count is None or start == 0 else 0,
    )


def _names_before(batch: Batch, row: int) -> int:
    """How many samples stand in the rows before."""
    return int(batch.segments_BT[:row].amax(dim=1).sum()) if row else 0


def _media_of(whole: MediaBatch, start: int, stop: int) -> MediaBatch:
    """The media that stand in some rows; they lie in the order of their rows."""
    first = sum(row < start for row in whole.rows)
    last = sum(row < stop for row in whole.rows)
    mine = whole.plans[first:last]
    begin, end = (sum(_inputs(whole, i) for i in range(stop)) for stop in (first, last))
    grids = [sum(1 if plan.patches else plan.images for plan in part) for part in (whole.plans[:first], mine)]
    return replace(
        whole,
        pixels_NCHW=whole.pixels_NCHW[begin:end],
        plans=mine,
        rows=tuple(row - start for row in whole.rows[first:last]),
        features=None if whole.features is None else _features_of(whole.features, grids[0], grids[1]),
        texts=whole.texts[first:last],
        details_NCHW=None if whole.details_NCHW is None else whole.details_NCHW[first:last],
        kept=whole.kept[first:last],
    )


def _inputs(whole: MediaBatch, index: int) -> int:
    """The encoder's inputs of a picture: none where its features were found in a store."""
    kept, plan = whole.kept[index] if whole.kept else None, whole.plans[index]
    if kept is not None and kept.features is not None:
        return 0
    return plan.patches.tokens if plan.patches else plan.images


def _features_of(whole: Features, first: int, count: int) -> Features:
    begin = sum(grid.tokens for grid in whole.grids[:first])
    grids = whole.grids[first : first + count]
    return Features(whole.values_ND[begin : begin + sum(grid.tokens for grid in grids)], grids)

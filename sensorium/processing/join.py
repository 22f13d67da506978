"""A Batch with a row more, or with two rows in one.

Shape legend: B rows, T tokens.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError


def with_row(batch: Batch, row: Batch) -> Batch:
    """A batch with the rows of another one below, whose media are of kinds that the first has none of.

    The sum over the losses, and what divides it, stay the first one's: nothing may be learned from the rows below.
    """
    rows = len(batch.input_ids_BT)
    earlier = sum(len(media.plans) for media in batch.media.values())
    slots = {kind: batch.slots.get(kind, torch.zeros_like(batch.learn_BT)) for kind in (*batch.slots, *row.slots)}
    below = {kind: row.slots.get(kind, torch.zeros_like(row.learn_BT)) for kind in slots}
    moved = {kind: replace(media, rows=tuple(r + rows for r in media.rows)) for kind, media in row.media.items()}
    places = None
    if batch.places_3BT is not None and row.places_3BT is not None:
        places = _stacked(batch.places_3BT, row.places_3BT)
    weights = batch.loss_weights_BT
    return replace(
        batch,
        input_ids_BT=_stacked(batch.input_ids_BT, row.input_ids_BT),
        learn_BT=_stacked(batch.learn_BT, row.learn_BT),
        segments_BT=_stacked(batch.segments_BT, row.segments_BT),
        positions_BT=_stacked(batch.positions_BT, row.positions_BT),
        branches_BT=_stacked(batch.branches_BT, row.branches_BT),
        slots={kind: _stacked(slots[kind], below[kind]) for kind in slots},
        media={**batch.media, **moved},
        media_index_BT=_stacked(batch.media_index_BT, torch.where(row.media_index_BT > 0, row.media_index_BT + earlier, 0)),
        packed=batch.packed or row.packed,
        ids=(*batch.ids, *row.ids),
        places_3BT=places,
        loss_weights_BT=None if weights is None else _stacked(weights, torch.ones_like(row.input_ids_BT, dtype=weights.dtype)),
    )


def in_pairs(batch: Batch, pad_id: int) -> Batch:
    """A batch whose rows are two rows each, one behind the other as one sample; one that is left over stays alone.

    Raises:
        ConfigError: rows that hold several samples, are padded on the left, or have places in two dimensions.
    """
    if batch.packed or batch.padded_left or batch.places_3BT is not None:
        raise ConfigError("rows that are to be joined, and hold several samples or places in two dimensions", fix="pack: false")
    lengths = (batch.segments_BT > 0).sum(dim=1).tolist()
    pairs = [(row, row + 1)[: len(lengths) - row] for row in range(0, len(lengths), 2)]

    def pair_up(values_BT: Tensor, fill: int = 0) -> Tensor:
        rows = [torch.cat([values_BT[row, : lengths[row]] for row in pair]) for pair in pairs]
        return pad_sequence(rows, batch_first=True, padding_value=fill)

    segments_PT = pair_up((batch.segments_BT > 0).long())
    return replace(
        batch,
        input_ids_BT=pair_up(batch.input_ids_BT, pad_id),
        learn_BT=pair_up(batch.learn_BT),
        segments_BT=segments_PT,
        positions_BT=torch.arange(segments_PT.shape[1], device=segments_PT.device) * segments_PT,
        branches_BT=torch.zeros_like(segments_PT),
        slots={kind: pair_up(slots_BT) for kind, slots_BT in batch.slots.items()},
        media={kind: replace(media, rows=tuple(row // 2 for row in media.rows)) for kind, media in batch.media.items()},
        media_index_BT=pair_up(batch.media_index_BT),
        loss_weights_BT=None if batch.loss_weights_BT is None else pair_up(batch.loss_weights_BT, 1),
        wanted=tuple(replace(one, row=one.row // 2, start=one.start + lengths[one.row - 1] * (one.row % 2)) for one in batch.wanted),
    )


def _stacked(above_BT: Tensor, below_BT: Tensor) -> Tensor:
    """One above the other, the shorter one filled up on the right with zeros."""
    length = max(above_BT.shape[-1], below_BT.shape[-1])
    return torch.cat([F.pad(x_BT, (0, length - x_BT.shape[-1])) for x_BT in (above_BT, below_BT)], dim=-2)

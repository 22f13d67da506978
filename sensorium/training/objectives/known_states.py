"""What an LLM that does not learn makes of a text is computed once and kept: a small LLM costs ten times what a small
generator does. Neighbours, and what was kept, change no bit: each text goes through the LLM alone, or on a GPU, which would wait
for single texts, among so many rows of so many tokens that shapes are always the same few.

Shape legend: B rows, T tokens, K signal tokens, D LLM width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor

from sensorium.core.batch import Batch, Example, Wanted
from sensorium.core.hands import MadeKind
from sensorium.model.device import to_device
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate

MOST_KEPT = 20000
"""Texts whose states are kept, at most: 18 kB each where eight tokens of width 576 stand for a picture."""
At = Callable[[MultimodalModel, Tensor, Batch, tuple[int, int]], Tensor]
"""Of states (B, T, D) what is kept of the medium whose row and first signal token are given."""
ROWS_GPU, TOKENS_GPU = 64, 32
"""On a GPU: rows of a batch, and of what their length is a multiple."""


class KnownStates:
    """The states of media's signal tokens, by the text in front of them."""

    def __init__(self, pad_id: int, kind: MadeKind = "image", at: At | None = None) -> None:
        """Take the kind of media, and what is kept of a text's states; None: what the output projector reads (`at_signals`)."""
        self.pad_id, self.at = pad_id, at or partial(at_signals, kind=kind)
        self.kind: MadeKind = kind
        self.kept: dict[tuple[int, ...], Tensor] = {}

    def clear(self) -> None:
        """Forget them: the LLM is another one."""
        self.kept.clear()

    def __call__(self, model: MultimodalModel, batch: Batch, wanted: Sequence[Wanted]) -> list[Tensor]:
        """The states (K, D) of each medium's signal tokens, from before or computed now, without gradients."""
        signals = len(model.config.hands[self.kind].signals)
        texts = _texts(batch, wanted, signals)
        found = {text: self.kept[text] for text in texts if text in self.kept}
        fresh = [text for text in dict.fromkeys(texts) if text not in found]
        for some in _alike(fresh, alone=model.device.type == "cpu"):
            found |= zip(some, self.read(model, some, alone=model.device.type == "cpu"), strict=True)
        for text in fresh:
            if len(self.kept) >= MOST_KEPT:
                self.kept.pop(next(iter(self.kept)))
            self.kept[text] = found[text]
        return [found[text] for text in texts]

    def read(self, model: MultimodalModel, texts: Sequence[tuple[int, ...]], *, alone: bool) -> list[Tensor]:
        """The states (K, D) of each text's signal tokens, its last ones.

        Args:
            alone: one text; else fewer than `ROWS_GPU` of one width, beside rows of padding.
        """
        rows = [list(text) for text in texts]
        if not alone:
            rows += [[self.pad_id] * _width(texts[0])] * (ROWS_GPU - len(rows))
        batch = to_device(collate([[Example(row, [False] * len(row), media_index=[0] * len(row))] for row in rows], self.pad_id), model.device)
        with torch.no_grad():
            hidden_BTD = model(batch).hidden_BTD
        signals = len(model.config.hands[self.kind].signals)
        # Copies: what is kept must not hold on to all rows.
        return [self.at(model, hidden_BTD, batch, (row, len(text) - signals)).clone() for row, text in enumerate(texts)]


def _width(text: tuple[int, ...]) -> int:
    """Of the batch that a text is read in: its own length decides, and no neighbour's."""
    return -(-len(text) // TOKENS_GPU) * TOKENS_GPU


def _alike(texts: Sequence[tuple[int, ...]], *, alone: bool) -> Iterator[list[tuple[int, ...]]]:
    """Texts that are read together."""
    rows = 1 if alone else ROWS_GPU - 1
    for width in dict.fromkeys(map(_width, texts)):
        same = [text for text in texts if _width(text) == width]
        yield from (same[first : first + rows] for first in range(0, len(same), rows))


def _texts(batch: Batch, wanted: Sequence[Wanted], signals: int) -> list[tuple[int, ...]]:
    """The ids of each medium's sample up to its last signal token."""
    # All at once: a GPU is waited for two times, not twice for each text.
    ids_BT, segments_BT = cast(list[list[int]], batch.input_ids_BT.tolist()), cast(list[list[int]], batch.segments_BT.tolist())
    firsts = [segments_BT[one.row].index(segments_BT[one.row][one.start]) for one in wanted]
    return [tuple(ids_BT[one.row][first : one.start + signals]) for one, first in zip(wanted, firsts, strict=True)]


def at_signals(model: MultimodalModel, hidden_BTD: Tensor, batch: Batch, place: tuple[int, int], kind: MadeKind = "image") -> Tensor:
    """What the output projector reads of one medium, (K, D).

    Args:
        place: row and first signal token.
    """
    hand, (row, start) = model.config.hands[kind], place
    back, count = int(hand.reader.reads_before), len(hand.signals)
    states_KD = hidden_BTD[row, start - back : start - back + count]
    if hand.reader.adds_embeddings:
        states_KD = states_KD + model.backbone.embed(batch.input_ids_BT[row, start : start + count])
    return states_KD


def llm_learns(model: MultimodalModel) -> bool:
    """Whether anything of it does."""
    return any(parameter.requires_grad for parameter in model.backbone.parameters())

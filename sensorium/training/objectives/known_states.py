"""What an LLM that does not learn makes of a text is computed once and kept: a small LLM costs ten times what a small
generator does. Each text goes through the LLM alone, so that neighbours, and what was kept, change no bit.

Shape legend: B rows, T tokens, K signal tokens, D LLM width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sensorium.core.batch import Batch, Example, Wanted
from sensorium.model.device import to_device
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate

MOST_KEPT = 20000
"""Texts whose states are kept, at most: 18 kB each where eight tokens of width 576 stand for a picture."""


class KnownStates:
    """The states of pictures' signal tokens, by the text in front of them."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id
        self.kept: dict[tuple[int, ...], Tensor] = {}

    def clear(self) -> None:
        """Forget them: the LLM is another one."""
        self.kept.clear()

    def __call__(self, model: MultimodalModel, batch: Batch, one: Wanted) -> Tensor:
        """The states (K, D) of a picture's signal tokens, from before or computed now, without gradients."""
        first = int((batch.segments_BT[one.row] == batch.segments_BT[one.row, one.start]).nonzero()[0, 0])
        ids = batch.input_ids_BT[one.row, first : one.start + len(model.config.hands["image"].signals)]
        key = tuple(ids.tolist())
        if key not in self.kept:
            if len(self.kept) >= MOST_KEPT:
                self.kept.pop(next(iter(self.kept)))
            alone = to_device(collate([[Example(list(key), [False] * len(key), media_index=[0] * len(key))]], self.pad_id), model.device)
            with torch.no_grad():
                hidden_BTD = model(alone).hidden_BTD
            self.kept[key] = at_signals(model, hidden_BTD, alone, (0, one.start - first))
        return self.kept[key]


def at_signals(model: MultimodalModel, hidden_BTD: Tensor, batch: Batch, place: tuple[int, int]) -> Tensor:
    """What the output projector reads of one picture, (K, D).

    Args:
        place: row and first signal token.
    """
    hand, (row, start) = model.config.hands["image"], place
    back, count = int(hand.reader.reads_before), len(hand.signals)
    states_KD = hidden_BTD[row, start - back : start - back + count]
    if hand.reader.adds_embeddings:
        states_KD = states_KD + model.backbone.embed(batch.input_ids_BT[row, start : start + count])
    return states_KD


def llm_learns(model: MultimodalModel) -> bool:
    """Whether anything of it does."""
    return any(parameter.requires_grad for parameter in model.backbone.parameters())

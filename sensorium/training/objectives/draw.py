"""A drawer learns to draw what an LLM says: cross-entropy of the codes of an answer's picture, behind the states of the signal
tokens that stand for it.

Conditions are left out by chance, for guidance (arXiv:2207.12598). Where nothing of the LLM learns, the states of a text are
computed once and kept: a small LLM costs ten times what a small drawer does. Each text goes through the LLM alone, so that
neighbours, and what was kept, change no bit.

Shape legend: B rows, T tokens, N pictures, K signal tokens, D LLM width, L condition tokens, C condition width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from sensorium.core.batch import Batch, Example, Wanted
from sensorium.data.source import Source
from sensorium.generators.drawer import Drawer
from sensorium.generators.painter import Painter
from sensorium.generators.vq import VqTokenizer
from sensorium.model.device import to_device
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.processing.wanted_pictures import wanted_pixels
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.next_token import token_losses
from sensorium.training.objectives.picture_codes import drawer_of

MOST_KEPT = 20000
"""Texts whose states are kept, at most: 18 kB each where eight tokens of width 576 stand for a picture."""


class DrawConfig(ObjectiveConfig):
    """Teaches `hands.image`, and its drawer's painter as the part `objective` (`layers: [painter.*]`)."""

    kind: Literal["draw"] = "draw"
    left_out: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of the pictures that are drawn without a condition."""
    noise: float = Field(default=0.0, ge=0.0)
    """Deviation of what is added to conditions, of their own over texts = 1: texts are few, and their states exact."""
    text_weight: float = Field(default=0.0, ge=0.0)
    """Of the next-token loss; 0 where the LLM has learnt when to draw."""

    @property
    def from_answers(self) -> tuple[str, ...]:
        return ("image",)

    def build(self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]) -> Objective:
        return Draw(self, drawer_of(model, self.kind), processor)


class Draw:
    """The mean over pictures, and over learned tokens, added: both are means, so that a batch weighs as one."""

    def __init__(self, config: DrawConfig, drawer: Drawer, processor: Processor) -> None:
        self.config = config
        self.module: nn.Module = drawer
        self.limits = processor.limits
        self.pad_id = processor.tokenizer.pad_id
        self.kept: dict[tuple[int, ...], Tensor] = {}

    def begin(self, model: MultimodalModel) -> None:
        """States from before, when this stage was tried on a batch, are those of an LLM that had yet to learn."""
        self.kept.clear()

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        wanted = [one for one in batch.wanted if one.kind == "image"]
        runs = self.config.text_weight > 0 or any(batch.media.values()) or _llm_learns(model)
        parts: dict[str, float] = {}
        total = torch.zeros((), device=model.device)
        if runs:
            hidden_BTD = model(batch).hidden_BTD
            words = token_losses(model, batch, hidden_BTD)
            total = total + self.config.text_weight * words.total / max(1, words.count)
            parts |= words.parts
            states_NKD = [_at_signals(model, hidden_BTD, batch, (one.row, one.start)) for one in wanted]
        else:
            states_NKD = [self._known(model, batch, one) for one in wanted]
        if wanted:
            drawn = self._drawn(model, torch.stack(states_NKD), wanted)
            total, parts = total + drawn, parts | {"drawn": float(drawn.detach())}
        return Losses(total, 1, parts)

    def _drawn(self, model: MultimodalModel, states_NKD: Tensor, wanted: Sequence[Wanted]) -> Tensor:
        tokenizer, painter = cast(VqTokenizer, self.module.tokenizer), cast(Painter, self.module.painter)
        ids_NM = tokenizer.encode(wanted_pixels(wanted, tokenizer.size_px, self.limits).to(model.device))
        condition_NLC = cast(Tensor, model.hands["image"](states_NKD))
        left_out_N = torch.rand(len(wanted), device=model.device) < self.config.left_out
        return painter.loss(ids_NM, condition_NLC, left_out_N, self.config.noise if painter.training else 0.0).mean()

    def _known(self, model: MultimodalModel, batch: Batch, one: Wanted) -> Tensor:
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
            self.kept[key] = _at_signals(model, hidden_BTD, alone, (0, one.start - first))
        return self.kept[key]


def _at_signals(model: MultimodalModel, hidden_BTD: Tensor, batch: Batch, place: tuple[int, int]) -> Tensor:
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


def _llm_learns(model: MultimodalModel) -> bool:
    return any(parameter.requires_grad for parameter in model.backbone.parameters())

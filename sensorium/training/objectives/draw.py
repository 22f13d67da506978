"""A drawer learns to draw what an LLM says: cross-entropy of the codes of an answer's picture, behind the states of the signal
tokens that stand for it.

Conditions are left out by chance, for guidance (arXiv:2207.12598). Where nothing of the LLM learns, the states of a text are
computed once and kept (`known_states.py`).

Shape legend: B rows, T tokens, N pictures, K signal tokens, D LLM width, L condition tokens, C condition width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from sensorium.core.batch import Batch, Wanted
from sensorium.data.source import Source
from sensorium.generators.drawer import Drawer
from sensorium.generators.painter import Painter
from sensorium.generators.vq import VqTokenizer
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.processor import Processor
from sensorium.processing.wanted_pictures import wanted_pixels
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.known_states import KnownStates, at_signals, llm_learns
from sensorium.training.objectives.next_token import token_losses
from sensorium.training.objectives.picture_codes import drawer_of


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
        self.known = KnownStates(processor.tokenizer.pad_id)

    def begin(self, model: MultimodalModel) -> None:
        """States from before, when this stage was tried on a batch, are those of an LLM that had yet to learn."""
        self.known.clear()

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        wanted = [one for one in batch.wanted if one.kind == "image"]
        runs = self.config.text_weight > 0 or any(batch.media.values()) or llm_learns(model)
        parts: dict[str, float] = {}
        total = torch.zeros((), device=model.device)
        if runs:
            hidden_BTD = model(batch).hidden_BTD
            words = token_losses(model, batch, hidden_BTD)
            total = total + self.config.text_weight * words.total / max(1, words.count)
            parts |= words.parts
            states = [at_signals(model, hidden_BTD, batch, (one.row, one.start)) for one in wanted]
        else:
            states = self.known(model, batch, wanted)
        if wanted:
            drawn = self._drawn(model, torch.stack(states), wanted)
            total, parts = total + drawn, parts | {"drawn": float(drawn.detach())}
        return Losses(total, 1, parts)

    def _drawn(self, model: MultimodalModel, states_NKD: Tensor, wanted: Sequence[Wanted]) -> Tensor:
        tokenizer, painter = cast(VqTokenizer, self.module.tokenizer), cast(Painter, self.module.painter)
        ids_NM = tokenizer.encode(wanted_pixels(wanted, tokenizer.size_px, self.limits).to(model.device))
        condition_NLC = cast(Tensor, model.hands["image"](states_NKD))
        left_out_N = torch.rand(len(wanted), device=model.device) < self.config.left_out
        return painter.loss(ids_NM, condition_NLC, left_out_N, self.config.noise if painter.training else 0.0).mean()

"""Predict the next element: words by cross-entropy, embeddings of pictures by how far they are from the true ones.

Every element counts alike, a word or an embedding. The true embeddings are what the model reads of the picture itself, and get no
gradient. The state behind a picture's last embedding is not taught: what ends a picture always follows there.

Sources: Emu (arXiv:2307.05222) and Emu2 (arXiv:2312.13286); github.com/baaivision/Emu, Emu1/models/modeling_llama.py. Both papers
name an l2 loss and no code of theirs computes it: `l2` here is the length of the difference, not its square.

Shape legend: B pictures, N embeddings, C their width, M embeddings of a batch end to end, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from sensorium.core.batch import Batch, Wanted
from sensorium.core.errors import AlignmentError, ConfigError
from sensorium.core.hands import MadeKind
from sensorium.data.source import Source
from sensorium.model.fed_back import true_embeddings
from sensorium.model.hand_check import fed_kinds
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.condition_loss import CONDITION_LOSSES, ConditionLossName
from sensorium.processing.processor import Processor
from sensorium.text.chat import TemplateName
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.next_token import token_losses


class RegressConfig(ObjectiveConfig):
    """Teaches the LLM, and the `hands` that are fed back, by the pictures of answers themselves."""

    kind: Literal["regress"] = "regress"
    layout: TemplateName | None = None
    """The chat template of this stage; None: the model's own."""
    distance: ConditionLossName = "l2"
    weight: float = Field(default=1.0, ge=0.0)
    """Of an embedding's distance, beside the loss of a word."""
    last_only: bool = False
    """Of each sample only the last picture is foretold; what its answers hold in front is read (Emu2-Gen)."""

    @property
    def template(self) -> str | None:
        return self.layout

    @property
    def weighs_tokens(self) -> bool:
        return True

    @property
    def sums_over_rows(self) -> bool:
        return True

    def build(self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]) -> Objective:
        if not fed_kinds(model.config):
            raise ConfigError("objective 'regress' for a model that writes no picture embedding by embedding", where="objective.kind",
                              fix="give hands a projector {kind: regression}, or choose objective {kind: instruct}")  # fmt: skip
        return Regress(self)


@dataclass(frozen=True, slots=True)
class Regress:
    """A sum over words and embeddings, and how many they are."""

    config: RegressConfig

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        kinds: list[MadeKind] = [kind for kind in fed_kinds(model.config) if batch.media.get(kind) is not None]
        encoded = {kind: model.encode(kind, batch.media[kind]) for kind in kinds}
        # What was encoded is not encoded again.
        known = {kind: replace(batch.media[kind], features=encoded[kind]) for kind in kinds}
        batch = replace(batch, media={**batch.media, **known})
        output = model(batch)
        text = token_losses(model, batch, output.hidden_BTD)
        total, count, parts = text.total, text.count, dict(text.parts)
        for kind in kinds:
            wanted = [one for one in batch.wanted if one.kind == kind]
            wanted = last_ones(batch, wanted) if self.config.last_only else wanted
            if not wanted:
                continue
            made_BNC = model.condition(kind, output.hidden_BTD, batch.input_ids_BT, [(one.row, one.start) for one in wanted])
            true_MC = true_embeddings(model, kind, encoded[kind], output.features[kind])
            true_BNC = of_wanted(true_MC, wanted, batch.slots[kind], made_BNC.shape[1])
            distance_B = CONDITION_LOSSES[self.config.distance](made_BNC, true_BNC)
            # Its mean over the embeddings, as often as there are some; once where the loop divides by samples.
            each = 1 if batch.loss_count is not None else made_BNC.shape[1]
            total = total + self.config.weight * each * (distance_B * _weights(batch, wanted)).sum()
            count += each * len(wanted)
            parts[f"embedding.{kind}"] = float(distance_B.detach().mean())
        return Losses(total, count, parts)


def of_wanted(true_MC: Tensor, wanted: Sequence[Wanted], slots_BT: Tensor, count: int) -> Tensor:
    """(B, N, C): of all pictures of a batch, those that answers hold.

    Raises:
        AlignmentError: the model reads fewer tokens of some than their embeddings are.
    """
    if (slots := int(slots_BT.sum())) != len(true_MC):
        raise AlignmentError(f"{len(true_MC)} embeddings of pictures of which {slots} tokens are read",
                             expected="as many: frames of videos that are averaged (model.video.pool) cannot be foretold beside pictures")  # fmt: skip
    order_BT = slots_BT.flatten().cumsum(0).view_as(slots_BT) - 1
    first = [int(order_BT[one.row, one.start + 1]) for one in wanted]
    return torch.stack([true_MC[begin : begin + count] for begin in first])


def last_ones(batch: Batch, wanted: Sequence[Wanted]) -> list[Wanted]:
    """The last one of each sample that holds some."""
    last: dict[tuple[int, int], Wanted] = {}
    for one in sorted(wanted, key=lambda one: one.start):
        last[one.row, int(batch.segments_BT[one.row, one.start])] = one
    return list(last.values())


def _weights(batch: Batch, wanted: Sequence[Wanted]) -> Tensor:
    """Of each picture, that of the token which begins it."""
    weights_BT = batch.loss_weights_BT
    known = [1.0 if weights_BT is None else float(weights_BT[one.row, one.start]) for one in wanted]
    return torch.tensor(known, device=batch.input_ids_BT.device)

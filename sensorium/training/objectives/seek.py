"""Retrieval: a request's signal token finds its picture among a batch's, and a picture its request.

Sources: FROMAGe (arXiv:2301.13823) and GILL (arXiv:2305.17216): InfoNCE in both directions between the state at the signal
token and the encoder's vector of the picture, beside the next-token loss. Requests that say the same are right for
each other's pictures.

Shape legend: B rows, T tokens, D width, N pictures of a batch, V width of their features, C width of the space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from sensorium.core.batch import Batch, Wanted
from sensorium.core.sample import Message, Part, Sample
from sensorium.data.source import Source
from sensorium.model.device import media_to_device
from sensorium.model.finding import compared, finding_way
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.contrastive import softmax_contrast
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.known_states import llm_learns
from sensorium.training.objectives.next_token import next_token_losses, token_losses

ROWS = 32
"""Rows and pictures at a time where nothing is kept for a backward pass."""


class SeekConfig(ObjectiveConfig):
    """Teaches `hands.image`, whose projector is a retrieval head."""

    kind: Literal["seek"] = "seek"
    weight: float = Field(default=1.0, ge=0.0)
    """Of the contrast, beside the next-token loss; 0: pictures are not looked at."""
    text_weight: float = Field(default=1.0, ge=0.0)
    """Of the next-token loss. 0, before an LLM that does not learn: each request goes through the LLM once."""
    max_scale: float | None = 100.0
    """The factor on cosines never grows beyond it."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Of pictures' features; the originals have none."""

    @property
    def weighs_tokens(self) -> bool:
        return True

    def build(self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]) -> Objective:
        """The objective.

        Raises:
            ConfigError: the model has no retrieval head, or sees no pictures.
        """
        name = finding_way(model).name
        return SeekObjective(self, processor, name, summary=bool(getattr(model.config.ways[name].projector, "summary", False)))


class SeekObjective:
    """Keeps vectors of pictures, and states of requests, as long as what makes them does not learn."""

    def __init__(self, config: SeekConfig, processor: Processor, way: str, *, summary: bool = False) -> None:
        self.config = config
        self.way = way
        self._summary = summary
        self.processor = processor
        self._pictures: dict[Any, Tensor] = {}
        self._states: dict[tuple[int, ...], Tensor] = {}

    def begin(self, model: MultimodalModel) -> None:
        """What was kept when this stage was tried on a batch: an earlier stage may have taught the LLM or the encoder since."""
        self._states.clear()
        self._pictures.clear()

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        head: Any = model.hands[self.way]
        wanted = [one for one in batch.wanted if one.kind == "image"]
        if not wanted or not self.config.weight:
            return next_token_losses(model, batch)
        text, texts_NC = self._texts(model, batch, wanted)
        if self.config.max_scale is not None and head.logit_scale.requires_grad:
            # Before a step, which is the same as after the one before it.
            with torch.no_grad():
                head.logit_scale.clamp_(max=math.log(self.config.max_scale))
        features_NV = self._features(model, wanted)
        if head.training and self.config.dropout:
            features_NV = torch.nn.functional.dropout(features_NV, self.config.dropout)
        scores_NN = head.scores(head.pictures(features_NV), texts_NC).float()
        right_NN = _same(wanted).to(scores_NN)
        right_NN = right_NN / right_NN.sum(dim=-1, keepdim=True)
        loss = softmax_contrast(scores_NN, scores_NN.T, targets=(right_NN, right_NN))
        count = text.count or len(wanted)
        parts = text.parts | {"contrast": float(loss.detach()), "found": _found(scores_NN.T, right_NN)}
        return Losses(text.total * self.config.text_weight + loss * (self.config.weight * count), count, parts)

    def _texts(self, model: MultimodalModel, batch: Batch, wanted: Sequence[Wanted]) -> tuple[Losses, Tensor]:
        """The next-token loss, and a vector for each request, (N, C)."""
        if self._keeps_states(model, batch):
            states_NKD, ids_NK = self._known_states(model, batch, wanted)
            places = [(n, int(model.config.ways[self.way].projector.reads_before)) for n in range(len(wanted))]
            vectors_NC = model.condition(self.way, states_NKD, ids_NK, places)[:, 0]
            return Losses(vectors_NC.new_zeros(()), 0, {}), vectors_NC
        hidden_BTD = model(batch).hidden_BTD
        text = token_losses(model, batch, hidden_BTD)
        return text, model.condition(self.way, hidden_BTD, batch.input_ids_BT, _places(wanted))[:, 0]

    def _keeps_states(self, model: MultimodalModel, batch: Batch) -> bool:
        """Whether a request's state is the same each time, and its tokens in front tell it from others."""
        plain = not batch.media and not batch.packed
        return plain and not self.config.text_weight and not llm_learns(model)

    @torch.no_grad()
    def _known_states(self, model: MultimodalModel, batch: Batch, wanted: Sequence[Wanted]) -> tuple[Tensor, Tensor]:
        """States at the signal tokens of each request, with what stands in front if that is read, and their ids."""
        hand = model.config.ways[self.way]
        back = int(hand.projector.reads_before)
        ids_NK = torch.stack([batch.input_ids_BT[one.row, one.start - back : one.start + len(hand.signals)] for one in wanted])
        keys = [tuple(batch.input_ids_BT[one.row, : one.start + 1].tolist()) for one in wanted]
        missing = {key: one for key, one in zip(keys, wanted, strict=True) if key not in self._states}
        names, ones = list(missing), list(missing.values())
        for start in range(0, len(ones), ROWS):
            part = ones[start : start + ROWS]
            hidden_BTD = model(_rows(batch, [one.row for one in part])).hidden_BTD
            for name, row_TD, one in zip(names[start:], hidden_BTD, part, strict=False):
                self._states[name] = row_TD[one.start - back : one.start + len(hand.signals)].clone()
        return torch.stack([self._states[key] for key in keys]), ids_NK

    def _features(self, model: MultimodalModel, wanted: Sequence[Wanted]) -> Tensor:
        """The encoder's vectors of the pictures, (N, V)."""
        sees = [model.encoders["image"], *([model.projectors["image"]] if self._summary else [])]
        if any(p.requires_grad for part in sees for p in part.parameters()):
            return self._looked_at(model, wanted)
        keys = [_picture_key(one) for one in wanted]
        missing = {key: one for key, one in zip(keys, wanted, strict=True) if key not in self._pictures}
        names, ones = list(missing), list(missing.values())
        for start in range(0, len(ones), ROWS):
            with torch.no_grad():
                found_NV = self._looked_at(model, ones[start : start + ROWS])
            self._pictures |= dict(zip(names[start : start + ROWS], found_NV, strict=True))
        return torch.stack([self._pictures[key] for key in keys])

    def _looked_at(self, model: MultimodalModel, wanted: Sequence[Wanted]) -> Tensor:
        asked = [Sample((Message("user", (Part("image", one.medium),)),), root=one.root) for one in wanted]
        examples = [self.processor.encode(sample, answer_next=True) for sample in asked]
        media = collate([[example] for example in examples], self.processor.tokenizer.pad_id).media
        return compared(model, self.way, media_to_device(media, model.device)["image"])


def _places(wanted: Sequence[Wanted]) -> list[tuple[int, int]]:
    return [(one.row, one.start) for one in wanted]


def _rows(batch: Batch, rows: list[int]) -> Batch:
    """Rows without media, cut behind the longest of them."""
    stop = int((batch.segments_BT[rows] > 0).sum(dim=1).max())
    return replace(
        batch,
        input_ids_BT=batch.input_ids_BT[rows, :stop],
        learn_BT=batch.learn_BT[rows, :stop],
        segments_BT=batch.segments_BT[rows, :stop],
        positions_BT=batch.positions_BT[rows, :stop],
        branches_BT=batch.branches_BT[rows, :stop],
        media_index_BT=batch.media_index_BT[rows, :stop],
        places_3BT=None if batch.places_3BT is None else batch.places_3BT[:, rows, :stop],
        loss_weights_BT=None,
        wanted=(),
    )


def _picture_key(one: Wanted) -> Any:
    """What tells a picture from others: where it lies, or its bytes."""
    if isinstance(one.medium, str | Path):
        return str((one.root or Path()) / one.medium)
    # An object in memory is held on to, so that no other takes its place.
    return one.medium if isinstance(one.medium, bytes) else _Held(one.medium)


@dataclass(frozen=True, eq=False)
class _Held:
    """An object in memory, equal to itself alone."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _same(wanted: Sequence[Wanted]) -> Tensor:
    """Which requests say the same, (N, N)."""
    numbers: dict[str, int] = {}
    said_N = torch.tensor([numbers.setdefault(one.caption, len(numbers)) for one in wanted])
    return (said_N[:, None] == said_N).float()


def _found(to_pictures_NN: Tensor, right_NN: Tensor) -> float:
    """Share of requests whose best picture is right."""
    best_N1 = to_pictures_NN.argmax(dim=-1, keepdim=True)
    return float((right_NN.gather(1, best_N1) > 0).float().mean())

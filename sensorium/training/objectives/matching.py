"""Contrast, and matching of what contrast nearly confuses (BLIP, arXiv:2201.12086; ALBEF,
arXiv:2107.07651).

Each picture finds its text by one vector of each. Then text and picture are read together, every
right pair, and two wrong ones for each: a text beside a picture, and a picture beside a text, drawn by
how alike their vectors are.

Shape legend: N pairs of a batch, one in each row; J width of the shared space, K tokens of a picture, E
their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError, DataError
from sensorium.data.source import Source
from sensorium.model.joint import matching_parts, read_together, text_vectors
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.contrastive import hard_negatives, matching_loss, softmax_contrast
from sensorium.processing.processor import Processor
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.contrastive import found, one_pair
from sensorium.training.objectives.slow_copy import SlowConfig, SlowCopy, owners, unit

FLOOR = 1e-4
"""Chance of every wrong partner, at least (BLIP's pretraining)."""


class MatchingConfig(ObjectiveConfig):
    """The sum of both losses."""

    kind: Literal["matching"] = "matching"
    temperature: float = Field(default=0.07, gt=0)
    """Cosines are divided by it before the softmax. It learns where there is a slow copy."""
    slow: SlowConfig | None = None
    """A slower copy of the model, for softer targets and a queue of more negatives."""
    captions_share: bool = False
    """Every caption of a picture is right, and none is a negative; pictures are the same where their pixels
    are, so that they must not be changed at random."""

    @property
    def template(self) -> str | None:
        return "pair"

    @property
    def reads_pixels(self) -> bool:
        return self.captions_share

    def build(
        self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]
    ) -> Objective:
        """The objective.

        Raises:
            ConfigError: the model does not read pictures and texts together.
        """
        return MatchingObjective(self, model, processor, sum(len(source) for source in sources))


@dataclass(frozen=True, slots=True)
class Near:
    """Contrast of a batch, how near each picture is to each text, and what is right."""

    loss: Tensor
    to_texts_NN: Tensor
    to_pictures_NN: Tensor
    floor: float
    right_NN: Tensor | None = None


class MatchingObjective:
    """Contrast and matching, summed."""

    def __init__(
        self, config: MatchingConfig, model: MultimodalModel, processor: Processor, rows: int
    ) -> None:
        """Check the model and take a slow copy, if one is wanted.

        Args:
            rows: of data.
        """
        matching_parts(model)
        # A stage's processor is its own, because this objective asks for a template.
        processor.require(one_pair)
        self.config = config
        self.module = SlowCopy(config.slow, model, rows, config.temperature) if config.slow else None

    def begin(self, model: MultimodalModel) -> None:
        """The slow copy begins as the model."""
        if self.module is not None:
            self.module.begin(model)

    def stepped(self, model: MultimodalModel) -> None:
        """The slow copy follows."""
        if self.module is not None:
            self.module.stepped(model)

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        """The losses.

        Raises:
            DataError: the batch has one pair, or one picture, which cannot be confused with another.
            ConfigError: rows hold several pairs.
        """
        tower, scorer = matching_parts(model)
        count = len(batch.input_ids_BT)
        if batch.packed:
            raise ConfigError("several pairs in a row, to be matched", fix="pack: false")
        if count < 2:
            raise DataError("a batch of one pair", expected="at least two, to confuse them",
                            fix="raise batch_size")  # fmt: skip
        features = model.features(batch.media)
        near = self._near(batch, unit(scorer.pictures(features["image"])), unit(text_vectors(tower, batch)))
        media_NKE = scorer.context(features, batch.media, count)
        assert media_NKE is not None
        losses = {"contrastive": near.loss, **self._read(model, batch, media_NKE.media_BKE, near)}
        total = torch.stack(list(losses.values())).sum()
        parts = {name: float(loss.detach()) for name, loss in losses.items()}
        return Losses(total * count, count, parts | {"found": found(near.to_texts_NN)})

    def _near(self, batch: Batch, pictures_NJ: Tensor, texts_NJ: Tensor) -> Near:
        """Contrast. Where captions share pictures, the model's own vectors say what is confused; else the
        slow copy's candidates do, as in BLIP's retrieval and pretraining."""
        slow, count = self.module, len(texts_NJ)
        owners_N = owners(batch.media["image"]) if self.config.captions_share else None
        right_NN = None if owners_N is None else owners_N[:, None] == owners_N
        floor = FLOOR if owners_N is None else 0.0
        if slow is None:
            scores_NN = pictures_NJ @ texts_NJ.T / self.config.temperature
            right = None if right_NN is None else right_NN / right_NN.sum(dim=-1, keepdim=True)
            targets = None if right is None else (right, right)
            loss = softmax_contrast(scores_NN, scores_NN.T, targets=targets)
            return Near(loss, scores_NN, scores_NN.T, floor, right_NN)
        compared = slow.contrast(batch, pictures_NJ, texts_NJ, owners_N)
        if owners_N is None:
            return Near(compared.loss, compared.to_texts_NK[:, :count], compared.to_pictures_NK[:, :count], floor)
        scores_NN = (pictures_NJ @ texts_NJ.T / slow.temperature.value).detach()
        return Near(compared.loss, scores_NN, scores_NN.T, floor, right_NN)

    def _read(
        self, model: MultimodalModel, batch: Batch, media_NKE: Tensor, near: Near
    ) -> dict[str, Tensor]:
        """Losses of what reads texts over pictures: telling N right pairs from 2 N wrong ones."""
        try:
            wrong_texts_N, wrong_pictures_N = (
                hard_negatives(scores_NN, floor=near.floor, right_NN=near.right_NN)
                for scores_NN in (near.to_texts_NN, near.to_pictures_NN)
            )
        except ValueError as error:
            raise DataError(str(error), expected="several pictures", fix="raise batch_size") from None
        own_N = torch.arange(len(media_NKE), device=media_NKE.device)
        # The right pairs, then each text with a wrong picture, then each picture with a wrong text.
        pairs = ((own_N, own_N), (own_N, wrong_pictures_N), (wrong_texts_N, own_N))
        read = [read_together(model, batch, media_NKE, pair) for pair in pairs]
        return {"matching": matching_loss(torch.cat(read), len(own_N))}

"""Contrast, and matching of what contrast nearly confuses (BLIP, arXiv:2201.12086; ALBEF,
arXiv:2107.07651).

Each picture finds its text by one vector of each. Then text and picture are read together, every
right pair, and two wrong ones for each: a text beside a picture, and a picture beside a text, drawn by
how alike their vectors are.

Shape legend: N pairs of a batch, one in each row; T tokens, D width, J width of the shared space, K
tokens of a picture, E their width.
"""

from __future__ import annotations

from collections.abc import Sequence
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

FLOOR = 1e-4
"""Chance of every wrong partner, at least (BLIP's pretraining)."""


class MatchingConfig(ObjectiveConfig):
    """The sum of both losses."""

    kind: Literal["matching"] = "matching"
    temperature: float = Field(default=0.07, gt=0)
    """Cosines are divided by it before the softmax."""

    @property
    def template(self) -> str | None:
        return "pair"

    def build(
        self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]
    ) -> Objective:
        """The objective.

        Raises:
            ConfigError: the model does not read pictures and texts together.
        """
        matching_parts(model)
        # A stage's processor is its own, because this objective asks for a template.
        processor.require(one_pair)
        return MatchingObjective(self)


class MatchingObjective:
    """Holds nothing but its config."""

    def __init__(self, config: MatchingConfig) -> None:
        self.config = config

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        """Both losses.

        Raises:
            DataError: the batch has one pair, which cannot be confused with another.
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
        cosines_NN = scorer.scores(scorer.pictures(features["image"]), text_vectors(tower, batch)).float()
        scores_NN = cosines_NN / self.config.temperature
        contrast = softmax_contrast(scores_NN, scores_NN.T)
        media_NKE = scorer.context(features, batch.media, count)
        assert media_NKE is not None
        matching = _matching(model, batch, media_NKE.media_BKE, scores_NN)
        parts = {"contrastive": float(contrast.detach()), "matching": float(matching.detach()),
                 "found": found(scores_NN)}  # fmt: skip
        return Losses((contrast + matching) * count, count, parts)


def _matching(model: MultimodalModel, batch: Batch, media_NKE: Tensor, scores_NN: Tensor) -> Tensor:
    """Cross-entropy of telling N right pairs from 2 N wrong ones."""
    wrong_texts_N, wrong_pictures_N = (
        hard_negatives(scores, floor=FLOOR) for scores in (scores_NN, scores_NN.T)
    )
    own_N = torch.arange(len(scores_NN), device=scores_NN.device)
    # The right pairs, then each text with a wrong picture, then each picture with a wrong text.
    pairs = ((own_N, own_N), (own_N, wrong_pictures_N), (wrong_texts_N, own_N))
    read = [read_together(model, batch, media_NKE, pair) for pair in pairs]
    return matching_loss(torch.cat(read), len(own_N))

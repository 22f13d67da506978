"""Contrast: a picture finds its own text among a batch's, and a text its picture.

Sources: CLIP (arXiv:2103.00020), softmax; SigLIP (arXiv:2303.15343), a sigmoid for each pair; SEED (arXiv:2307.08041), the last of
a Q-Former's queries, with LAVIS' temperature.

Shape legend: N pairs of a batch, J width of the space that both share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from sensorium.core.batch import Batch, Example
from sensorium.core.errors import ConfigError, DataError
from sensorium.data.source import Source
from sensorium.model.joint import (
    joint_parts,
    picture_vectors,
    queried_parts,
    scaled_parts,
    text_vectors,
)
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.contrastive import sigmoid_contrast, softmax_contrast
from sensorium.processing.processor import Processor
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.slow_copy import Temperature


class ContrastiveConfig(ObjectiveConfig):
    """CLIP's loss by default."""

    kind: Literal["contrastive"] = "contrastive"
    loss: Literal["softmax", "sigmoid"] = "softmax"
    smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each target spread over the whole batch; softmax only."""
    max_scale: float | None = 100.0
    """The factor on cosines, or one over the temperature, never grows beyond it."""
    temperature: float | None = Field(default=None, gt=0.0)
    """Of a model whose scores have no factor of their own, a Q-Former's: cosines are divided by it. It is the part `objective`."""

    @property
    def template(self) -> str | None:
        return "pair"

    def build(
        self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]
    ) -> Objective:
        """The objective.

        Raises:
            ConfigError: the model has no space that pictures and texts share, or a sigmoid is to
                be smoothed; a temperature is missing, or one too many.
        """
        if self.temperature is None:
            scaled_parts(model)
        else:
            queried_parts(model)
        if self.smoothing and self.loss == "sigmoid":
            raise ConfigError("smoothing of a sigmoid loss", expected="0", where="objective.smoothing")
        # A stage's processor is its own, because this objective asks for a template.
        processor.require(one_pair)
        return ContrastiveObjective(self)


class ContrastiveObjective:
    """Holds its config, and the temperature if it is to have one."""

    def __init__(self, config: ContrastiveConfig) -> None:
        self.config = config
        self.module = None if config.temperature is None else Temperature(config.temperature)

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        if self.module is None:
            _, apart = scaled_parts(model)
            if self.config.max_scale is not None and apart.logit_scale.requires_grad:
                # Before a step, which is the same as after the one before it.
                with torch.no_grad():
                    apart.logit_scale.clamp_(max=math.log(self.config.max_scale))
        elif self.config.max_scale is not None and self.module.value.requires_grad:
            with torch.no_grad():
                self.module.value.clamp_(min=1 / self.config.max_scale)
        tower, scorer = joint_parts(model)
        texts_NJ = text_vectors(tower, batch)
        scores_NN = scorer.scores(picture_vectors(model, model.features(batch.media)["image"]), texts_NJ).float()
        if self.module is not None:
            scores_NN = scores_NN / self.module.value
        if self.config.loss == "sigmoid":
            loss = sigmoid_contrast(scores_NN)
        else:
            loss = softmax_contrast(scores_NN, scores_NN.T, smoothing=self.config.smoothing)
        count = len(scores_NN)
        parts = {"contrastive": float(loss.detach()), "found": found(scores_NN)}
        return Losses(loss * count, count, parts)


def found(scores_NN: Tensor) -> float:
    """Share of pictures whose own text has the highest score."""
    own_N = torch.arange(len(scores_NN), device=scores_NN.device)
    return float((scores_NN.argmax(dim=-1) == own_N).float().mean())


def one_pair(example: Example) -> None:
    """What the objective asks of a row.

    Raises:
        DataError: the Example does not hold exactly one picture and some text.
    """
    media = example.media.get("image")
    count = len(media.plans) if media is not None else 0
    if count == 1 and any(example.learn):
        return
    raise DataError(
        f"sample {example.id!r} holds {count} pictures and {sum(example.learn)} tokens of text",
        expected="one picture and its text as the answer, to contrast pairs",
        fix="leave the row out, or skip such rows with on_bad_row: skip",
    )

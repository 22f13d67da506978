"""Losses that are divided by the number of samples, not of tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sensorium.core.batch import Batch
from sensorium.model.multimodal import MultimodalModel
from sensorium.training.objectives.base import Losses, Objective


@dataclass(frozen=True, slots=True)
class PerSample:
    """An objective that is a sum over tokens, which bring the weights that `StageConfig.loss_per` gives them."""

    objective: Objective

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        losses = self.objective(model, batch)
        return losses if batch.loss_count is None else replace(losses, count=batch.loss_count)

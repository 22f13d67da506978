"""BLIP's pretraining: contrast with a slow copy, matching of what it confuses, and writing.

Source: BLIP (arXiv:2201.12086), section 3.2; github.com/salesforce/BLIP, models/blip_pretrain.py and pretrain.py.

Shape legend: N pairs of a batch, one in each row; T tokens, K tokens of a picture, E their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError
from sensorium.data.source import Source
from sensorium.model.joint import writing_part, written_over
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.contrastive import caption_loss
from sensorium.processing.processor import Processor
from sensorium.training.objectives.base import Objective
from sensorium.training.objectives.matching import MatchingConfig, MatchingObjective, Near
from sensorium.training.objectives.slow_copy import SlowConfig


class BlipPretrainConfig(MatchingConfig):
    """Defaults are BLIP's; the share of the slow copy rises over two epochs, as pretrain.py has it."""

    kind: Literal["blip_pretrain"] = "blip_pretrain"
    slow: SlowConfig | None = SlowConfig(rise_epochs=2.0)
    smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Of the targets of written words."""

    def build(
        self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]
    ) -> Objective:
        """The objective.

        Raises:
            ConfigError: the model does not write beside what it reads, or texts have no mark in front.
        """
        writing_part(model)
        if processor.tokenizer.bos_id is None:
            raise ConfigError(
                "texts without a mark in front, where another is to begin what is written",
                expected="a token in front of all texts",
                where="model.backbone.begins_with",
            )
        return BlipPretrain(self, model, processor, sum(len(source) for source in sources))


class BlipPretrain(MatchingObjective):
    """Contrast, matching and writing, summed."""

    config: BlipPretrainConfig

    def _read(
        self, model: MultimodalModel, batch: Batch, media_NKE: Tensor, near: Near
    ) -> dict[str, Tensor]:
        writing = written(model, batch, media_NKE, self.config.smoothing)
        return super()._read(model, batch, media_NKE, near) | {"writing": writing}


def written(model: MultimodalModel, batch: Batch, media_NKE: Tensor, smoothing: float = 0.0) -> Tensor:
    """Loss of every word given the picture and the words before it.

    Args:
        media_NKE: the tokens of each row's picture.
    """
    real_NT = batch.segments_BT > 0
    begins_NT = real_NT & (batch.positions_BT == 0)
    ids_NT = torch.where(begins_NT, writing_part(model).begin_id, batch.input_ids_BT)
    return caption_loss(written_over(model, batch, ids_NT, media_NKE), ids_NT, real_NT, smoothing)

"""Any objective, with a projector that is drawn towards what a P-Former makes of the captions.

Source: P-Former / DLP (arXiv:2307.07063), section 3.3; github.com/yiren-jian/BLIText,
blip2_qformer_pformer.py and blip2_pformer_opt.py.

Shape legend: M pictures, Q tokens of each, D width of the LLM.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import SerializeAsAny
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Batch
from sensorium.core.config import kinds
from sensorium.core.errors import DataError
from sensorium.data.source import Source
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.pretrained import load_part
from sensorium.processing.processor import Processor
from sensorium.training.objectives import OBJECTIVES
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.next_token import CaptionConfig
from sensorium.training.objectives.owned import begin, own_module, stepped
from sensorium.training.objectives.pformer import PFormer, PFormerConfig
from sensorium.training.objectives.read_captions import CaptionReader
from sensorium.training.objectives.sentences import teacher_queries
from sensorium.training.objectives.vocabulary import one_picture


class AlignedConfig(ObjectiveConfig):
    """`teacher` is the P-Former of a stage of `sentences` before this one; it does not learn."""

    kind: Literal["aligned"] = "aligned"
    objective: Annotated[SerializeAsAny[ObjectiveConfig], kinds(OBJECTIVES, ObjectiveConfig)] = CaptionConfig()
    teacher: PFormerConfig = PFormerConfig()
    teacher_folder: str | None = None
    """An imported `pformer.pth` of the authors' instead; what a stage of sentences taught is then not asked."""
    weight: float = 10.0
    """Of the mean squared distance beside the other losses."""

    @property
    def template(self) -> str | None:
        return self.objective.template

    @property
    def runs_llm(self) -> bool:
        return self.objective.runs_llm

    def build(
        self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]
    ) -> Objective:
        inner = self.objective.build(model, processor, sources)
        return Aligned(self, inner, model, processor)


class Aligned:
    """Adds the distance to another objective's losses."""

    def __init__(
        self, config: AlignedConfig, inner: Objective, model: MultimodalModel, processor: Processor
    ) -> None:
        self.config = config
        self.inner = inner
        self.reader = CaptionReader(processor, config.teacher.words, config.teacher.longest)
        self.module = nn.ModuleDict()
        self.teacher = PFormer(config.teacher, teacher_queries(model), model.config.backbone.d_model)
        if config.teacher_folder is not None:
            load_part(self.teacher, Path(config.teacher_folder), "teacher.")
        # A child called as that of the stage before would take over its tensors.
        self.module["teacher" if config.teacher_folder is None else "given"] = self.teacher
        owned = own_module(inner)
        if owned is not None:
            self.module["inner"] = owned
        processor.require(one_picture)

    def begin(self, model: MultimodalModel) -> None:
        """The inner objective's."""
        begin(self.inner, model)

    def stepped(self, model: MultimodalModel) -> None:
        """The inner objective's."""
        stepped(self.inner, model)

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        if "image" not in batch.media:
            raise DataError("a batch without pictures", expected="one picture in every sample")
        media = batch.media["image"]
        # The tower, by far the largest part in front of the LLM, runs once for both.
        media = dataclasses.replace(media, features=model.encode("image", media))
        batch = dataclasses.replace(batch, media={**batch.media, "image": media})
        losses = self.inner(model, batch)
        distance = self._distance(model, batch)
        parts = losses.parts | {"align": float(distance.detach())}
        return Losses(losses.total + self.config.weight * distance * losses.count, losses.count, parts)

    def _distance(self, model: MultimodalModel, batch: Batch) -> Tensor:
        """Mean squared distance, per dimension, of a picture's tokens and its caption's prompts."""
        ids_MS, real_MS = self.reader.read(batch, model.device)
        with torch.no_grad():
            prompts_MQD = self.teacher(ids_MS, real_MS)
        tokens_ND = model.projected("image", batch.media["image"]).values_ND
        if len(tokens_ND) != prompts_MQD.shape[0] * prompts_MQD.shape[1]:
            raise DataError(
                f"{len(tokens_ND)} tokens of pictures for {len(prompts_MQD)} captions",
                expected=f"{prompts_MQD.shape[1]} for each, as many as the teacher makes prompts",
            )
        return F.mse_loss(tokens_ND.float(), prompts_MQD.flatten(0, 1).float())

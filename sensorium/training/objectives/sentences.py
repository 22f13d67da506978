"""A P-Former learns from sentences alone which prompts make the frozen LLM say them.

Three losses: contrast of each sentence with all of its batch, distance of every prompt to the nearest word
of the LLM, and the LLM's own next-token loss behind the prompts. Pictures of the data are not looked at.

Source: P-Former / DLP (arXiv:2307.07063), section 3.2; github.com/yiren-jian/BLIText, pformer_opt.py.

Shape legend: M sentences, S tokens, Q prompts, T = Q + tokens for the LLM, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Batch, Example
from sensorium.core.errors import DataError
from sensorium.data.source import Source
from sensorium.model.device import to_device
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.next_token import learned
from sensorium.training.objectives.pformer import PFormer, PFormerConfig
from sensorium.training.objectives.read_captions import CaptionReader


class SentencesConfig(ObjectiveConfig):
    """Defaults are P-Former's."""

    kind: Literal["sentences"] = "sentences"
    teacher: PFormerConfig = PFormerConfig()
    masked: float = Field(default=0.25, ge=0.0, lt=1.0)
    """Share of the words that the P-Former does not see."""
    width: int = 256
    """Of the space in which sentences are told apart."""
    temperature: float = 0.07
    smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)

    @property
    def template(self) -> str | None:
        return "caption_line"

    def build(
        self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]
    ) -> Objective:
        return Sentences(self, model, processor)


class SentenceModules(nn.Module):
    """The P-Former that is to teach, and what only its own training needs."""

    def __init__(self, config: SentencesConfig, queries: int, d_model: int) -> None:
        super().__init__()
        self.teacher = PFormer(config.teacher, queries, d_model)
        self.text_out = nn.Linear(config.teacher.width, config.width)
        self.temperature = nn.Parameter(torch.tensor(config.temperature))


class Sentences:
    """Contrast, nearness and the LLM's loss, summed."""

    def __init__(self, config: SentencesConfig, model: MultimodalModel, processor: Processor) -> None:
        self.config = config
        self.processor = processor
        self.module = SentenceModules(config, teacher_queries(model), model.config.backbone.d_model)
        self.reader = CaptionReader(processor, config.teacher.words, config.teacher.longest)

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        ids_MS, real_MS = self.reader.read(batch, model.device)
        if len(ids_MS) < 2:
            raise DataError(f"{len(ids_MS)} sentences in a batch",
                            expected="at least two to be told apart", fix="raise batch_size")  # fmt: skip
        seen_MS = ids_MS
        if self.module.training:
            seen_MS = self._masked(ids_MS, real_MS)
        first_MW = self.module.teacher.first(seen_MS, real_MS)
        prompts_MQD = self.module.teacher.prompts(first_MW)
        losses = {
            "contrast": self._contrast(first_MW),
            "nearest": nearest_word_loss(prompts_MQD, model.backbone.embedding.weight),
            "next_token": self._spoken(model, batch, prompts_MQD),
        }
        count = len(ids_MS)
        total = torch.stack(list(losses.values())).sum() * count
        return Losses(total, count, {k: float(v.detach()) for k, v in losses.items()})

    def _masked(self, ids_MS: Tensor, real_MS: Tensor) -> Tensor:
        """The texts with some words hidden; the first token, which sums up, never is."""
        hidden_MS = torch.rand(ids_MS.shape).to(ids_MS.device) < self.config.masked
        hidden_MS &= real_MS
        hidden_MS[:, 0] = False
        return ids_MS.masked_fill(hidden_MS, self.reader.mask_id)

    def _contrast(self, first_MW: Tensor) -> Tensor:
        """Each sentence is to be most like itself, which only keeps the others away."""
        unit_ME = F.normalize(self.module.text_out(first_MW).float(), dim=-1)
        scores_MM = unit_ME @ unit_ME.T / self.module.temperature
        own_M = torch.arange(len(scores_MM), device=scores_MM.device)
        return F.cross_entropy(scores_MM, own_M, label_smoothing=self.config.smoothing)

    def _spoken(self, model: MultimodalModel, batch: Batch, prompts_MQD: Tensor) -> Tensor:
        """The LLM's mean loss on the sentences behind their prompts."""
        rows = to_device(self._rows(batch, prompts_MQD.shape[1]), model.device)
        embeds_MTD = model.backbone.embed(rows.input_ids_BT)
        queries = prompts_MQD.shape[1]
        embeds_MTD = torch.cat([prompts_MQD.to(embeds_MTD), embeds_MTD[:, queries:]], dim=1)
        hidden_ND, targets_N = learned(model.backbone.teacher_forced(embeds_MTD, rows), rows)
        return F.cross_entropy(model.logits(hidden_ND).float(), targets_N)

    def _rows(self, batch: Batch, queries: int) -> Batch:
        """What is learnt of each row, behind places for the prompts and a begin of text."""
        tokenizer = self.processor.tokenizer
        front = [tokenizer.pad_id] * queries
        front += [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        rows: list[list[Example]] = []
        for ids_T, learn_T in zip(batch.input_ids_BT, batch.learn_BT, strict=True):
            words = ids_T[learn_T].tolist()
            marks = [False] * len(front) + [True] * len(words)
            rows.append([Example([*front, *words], marks, media_index=[0] * len(marks))])
        return collate(rows, tokenizer.pad_id)


def nearest_word_loss(prompts_MQD: Tensor, words_VD: Tensor) -> Tensor:
    """Mean squared distance of each prompt, per dimension, to the word closest to it."""
    flat_ND, words_VD = prompts_MQD.flatten(0, 1).float(), words_VD.detach().float()
    with torch.no_grad():
        # Its own square is the same for all words.
        nearest_N = (words_VD.square().sum(dim=1) - 2 * flat_ND @ words_VD.T).argmin(dim=1)
    return F.mse_loss(flat_ND, words_VD[nearest_N])


def teacher_queries(model: MultimodalModel) -> int:
    """As many prompts as a picture has tokens."""
    return model.config.lane("image").tile_grid().tokens

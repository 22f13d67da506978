"""BLIP-2's first stage: the Q-Former learns from pictures and captions, without a language model.

Three losses over the same layers, told apart by who may see whom: contrast (pictures and captions do not
see each other), matching (both see everything) and writing (words see the picture and the words
before them). A pass in which no query sees a word serves contrast and writing at once.

Source: BLIP-2 (arXiv:2301.12597), section 3.2; github.com/salesforce/LAVIS, blip2_qformer.py, which also
smooths the targets of written words.

Shape legend: M pairs of picture and caption, L features, S words.
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
from sensorium.input_projectors.qformer import QFormer
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.contrastive import (
    caption_loss,
    hard_negatives,
    image_text_scores,
    matching_loss,
    softmax_contrast,
)
from sensorium.processing.processor import Processor
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.query_text import QueryText
from sensorium.training.objectives.read_captions import CaptionReader
from sensorium.training.objectives.vocabulary import one_picture


class QueryPretrainConfig(ObjectiveConfig):
    """Defaults are BLIP-2's."""

    kind: Literal["query_pretrain"] = "query_pretrain"
    words: int = 30523
    """Rows of the text half's vocabulary, where the Q-Former has none of its own: BERT's, and a token
    that begins a text to be written."""
    longest: int = Field(default=32, ge=3)
    """Tokens of a caption, its marks included; what is longer is cut."""
    width: int = 256
    """Of the space that pictures and captions share."""
    temperature: float = 0.07
    smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)

    @property
    def template(self) -> str | None:
        return "caption"

    @property
    def runs_llm(self) -> bool:
        return False

    def build(
        self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]
    ) -> Objective:
        return QueryPretrain(self, model, processor)


class QueryPretrain:
    """Contrast, matching and writing, summed."""

    def __init__(
        self, config: QueryPretrainConfig, model: MultimodalModel, processor: Processor
    ) -> None:
        self.config = config
        former = q_former(model)
        words = former.config.words or config.words
        self.module = QueryText(former.config, words, config.width, config.temperature)
        self.reader = CaptionReader(processor, words, min(config.longest, former.config.max_words))
        # Named before the first batch if there is no row for it.
        self.begin_id = self.reader.begin_id
        processor.require(one_picture)

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        former = q_former(model)
        image_MLD = image_features(model, batch)
        ids_MS, real_MS = self.reader.read(batch, model.device)
        if len(image_MLD) != len(ids_MS) or len(ids_MS) < 2:
            raise DataError(
                f"{len(image_MLD)} pictures and {len(ids_MS)} captions in a batch",
                expected="as many of either, and at least two to be told apart",
                fix="raise batch_size, and give captioned pictures",
            )
        module, smoothing = self.module, self.config.smoothing
        begun_MS = begun(ids_MS, self.begin_id)
        query_MQD, logits_MSV = module.written(former, image_MLD, begun_MS, real_MS)
        text_ME = module.text_features(former, ids_MS, real_MS)
        scores_MM = image_text_scores(module.image_features(query_MQD), text_ME) / module.temperature
        losses = {
            "contrast": softmax_contrast(scores_MM, scores_MM.T, smoothing=smoothing),
            "matching": self._matching(former, scores_MM, image_MLD, (ids_MS, real_MS)),
            "writing": caption_loss(logits_MSV, begun_MS, real_MS, smoothing),
        }
        total = torch.stack(list(losses.values())).sum()
        count = len(image_MLD)
        return Losses(total * count, count, {k: float(v.detach()) for k, v in losses.items()})

    def _matching(
        self, former: QFormer, scores_MM: Tensor, image_MLD: Tensor, text: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Every pair, every caption beside a wrong picture, every picture beside a wrong caption."""
        ids_MS, real_MS = text
        pictures_M, captions_M = hard_negatives(scores_MM.T), hard_negatives(scores_MM)
        logits_N2 = self.module.matches(
            former,
            torch.cat([image_MLD, image_MLD[pictures_M], image_MLD]),
            torch.cat([ids_MS, ids_MS, ids_MS[captions_M]]),
            torch.cat([real_MS, real_MS, real_MS[captions_M]]),
        )
        return matching_loss(logits_N2, len(ids_MS))


def begun(ids_MS: Tensor, begin_id: int) -> Tensor:
    """The same texts, to be written: another token begins them."""
    begun_MS = ids_MS.clone()
    begun_MS[:, 0] = begin_id
    return begun_MS


def q_former(model: MultimodalModel) -> QFormer:
    """The projector of pictures.

    Raises:
        ConfigError: it is not a Q-Former.
    """
    former = dict(model.projectors.items()).get("image")
    if not isinstance(former, QFormer):
        raise ConfigError(
            f"a projector of pictures of type {type(former).__name__}",
            expected="a Q-Former, which can read captions",
            where="model.lanes.image.projector",
            fix="projector: {kind: qformer}",
        )
    return former


def image_features(model: MultimodalModel, batch: Batch) -> Tensor:
    """The encoder's features of the pictures, (M, L, D).

    Raises:
        DataError: there are none, or they differ in number from picture to picture.
    """
    media = batch.media.get("image")
    features = model.encode("image", media) if media is not None else None
    grid = features.uniform() if features is not None else None
    if features is None or grid is None:
        raise DataError(
            "a batch without pictures, or with pictures of several layouts",
            expected="one picture in every sample, all of one resolution",
        )
    return features.values_ND.unflatten(0, (-1, grid.tokens))

"""Pictures are described, and found by their descriptions: next-token losses and contrast, both ways.

A batch of captioned pictures goes through the LLM twice: each picture in front of its caption, and each caption alone with
the signal tokens behind it, whose first state becomes the vector that finds the picture among the batch's. Where the same
tokens are to draw as well, they come to what the generator is steered by for the same caption.

Sources: FROMAGe (arXiv:2301.13823; github.com/kohjingyu/fromage, main.py, fromage/models.py) and GILL (arXiv:2305.17216;
github.com/kohjingyu/gill, main.py, gill/models.py), which counts the second text loss by half in retrieving and by half in drawing.
Of the signal tokens the first is learned: the others follow by force.

Shape legend: N pairs of a batch, T tokens, D LLM width, L condition tokens, C condition width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from sensorium.core.batch import Batch, Example, Wanted
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.hands import ReadingGenerator
from sensorium.data.source import Source
from sensorium.model.device import to_device
from sensorium.model.finding import finding_way, picture_vectors
from sensorium.model.learning_rows import keep_length
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.condition_loss import CONDITION_LOSSES, ConditionLossName
from sensorium.nn.contrastive import softmax_contrast
from sensorium.processing.collate import collate
from sensorium.processing.join import in_pairs
from sensorium.processing.processor import Processor
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.contrastive import found, one_pair
from sensorium.training.objectives.next_token import next_token_losses, token_losses


class RetrieveConfig(ObjectiveConfig):
    """Teaches a hand that finds pictures; defaults are FROMAGe's."""

    kind: Literal["retrieve"] = "retrieve"
    caption: float = Field(default=1.0, ge=0.0)
    """Of captions behind their pictures."""
    text: float = Field(default=1.0, ge=0.0)
    """Of captions alone and the first signal token."""
    contrast: float = Field(default=1.0, ge=0.0)
    draw: float = Field(default=0.0, ge=0.0)
    """Of the distance between what the hand's drawing way makes of the tokens and what its generator makes of the caption."""
    distance: ConditionLossName = "l2"
    joined: float = Field(default=0.5, ge=0.0, le=1.0)
    """How often two captioned pictures are one row, so that a caption is also written behind other pictures and texts."""
    same_length: bool = True
    """After each step, learnt embeddings of signal tokens are as long as the others are on average."""

    @property
    def template(self) -> str | None:
        return "captioned"

    def build(self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]) -> Objective:
        """The objective.

        Raises:
            ConfigError: the model finds no pictures, or has nothing to draw with.
        """
        finds = finding_way(model)
        draws = next((name for name, way in model.config.ways.items() if way.kind == finds.kind and name != finds.name), None)
        if self.draw and (draws is None or not hasattr(model.generators[draws], "encode_text")):
            raise ConfigError("objective 'retrieve' with draw for a model without a second way, whose generator reads texts",
                              where="objective.draw", fix="set draw: 0, or give the hand another way")  # fmt: skip
        processor.require(one_pair)
        return Retrieve(self, processor, (finds.name, draws))


class Retrieve:
    """Holds how texts are read."""

    def __init__(self, config: RetrieveConfig, processor: Processor, ways: tuple[str, str | None]) -> None:
        self.config = config
        self.processor = processor
        self.finds, self.draws = ways
        self.signals = processor.signals["image"]

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        pictures = batch.media.get("image")
        if pictures is None or len(pictures.plans) < 2:
            raise DataError("a batch with less than two pictures", expected="several, to be told apart", fix="raise batch_size")
        # Encoded once, for vectors and captions.
        pictures = replace(pictures, features=model.encode("image", pictures))
        batch = replace(batch, media={**batch.media, "image": pictures})
        told = to_device(self.told(batch), model.device)
        hidden_NTD = model(told).hidden_BTD
        places = [(one.row, one.start) for one in told.wanted]
        texts_NC = model.condition(self.finds, hidden_NTD, told.input_ids_BT, places)[:, 0]
        scores_NN = finding_way(model).head.scores(picture_vectors(model, pictures), texts_NC)
        terms = {
            "caption": (self.config.caption, _mean(next_token_losses(model, self._some_joined(batch)))),
            "text": (self.config.text, _mean(token_losses(model, told, hidden_NTD))),
            "contrast": (self.config.contrast, softmax_contrast(scores_NN, scores_NN.T)),
        }
        if self.config.draw and self.draws is not None:
            made_NLC = model.condition(self.draws, hidden_NTD, told.input_ids_BT, places)
            terms["condition"] = (self.config.draw, self._distance(model, made_NLC, told.wanted))
        count = len(places)
        total = torch.stack([weight * loss for weight, loss in terms.values()]).sum()
        parts = {name: float(loss.detach()) for name, (_, loss) in terms.items()}
        return Losses(total * count, count, parts | {"found": found(scores_NN)})

    def stepped(self, model: MultimodalModel) -> None:
        """Behind each step."""
        if self.config.same_length:
            keep_length(model.backbone.embedding.weight, self.signals)

    def told(self, batch: Batch) -> Batch:
        """The captions of a batch without their pictures, each with the signal tokens behind it."""
        tokenizer, count = self.processor.tokenizer, len(self.signals)
        begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        rows: list[list[Example]] = []
        for row, segments_T in enumerate(batch.segments_BT):
            for number in range(1, int(segments_T.max()) + 1):
                mine_T = (segments_T == number) & batch.learn_BT[row]
                caption = batch.input_ids_BT[row][mine_T].tolist()
                ids = [*begin, *caption, *self.signals]
                learn = [*([False] * len(begin)), *([True] * (len(caption) + 1)), *([False] * (count - 1))]
                wanted = Wanted("image", len(ids) - count, count, tokenizer.decode(caption).strip())
                rows.append([Example(ids, learn, media_index=[0] * len(ids), wanted=(wanted,))])
        return collate(rows, tokenizer.pad_id)

    def _some_joined(self, batch: Batch) -> Batch:
        if self.config.joined and float(torch.rand(())) < self.config.joined:
            return in_pairs(batch, self.processor.tokenizer.pad_id)
        return batch

    def _distance(self, model: MultimodalModel, made_NLC: Tensor, wanted: Sequence[Wanted]) -> Tensor:
        generator = cast(ReadingGenerator, model.generators.on(str(self.draws), model.device))
        with torch.no_grad():
            target_NLC = generator.encode_text([one.caption for one in wanted]).to(made_NLC.device)
        return CONDITION_LOSSES[self.config.distance](made_NLC, target_NLC).mean()


def _mean(losses: Losses) -> Tensor:
    return losses.total / max(1, losses.count)

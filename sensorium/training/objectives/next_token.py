"""Next-token cross-entropy on learned tokens: captions, or answers of conversations.

Sources: LLaVA (arXiv:2304.08485) stages 1 and 2.

Shape legend: B rows, T tokens, N learned tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError
from sensorium.data.source import Source
from sensorium.model.lookup import VocabularyLookup
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.answer_loss import answer_loss
from sensorium.processing.processor import Processor
from sensorium.text.chat import TemplateName
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig


class CaptionConfig(ObjectiveConfig):
    """Alignment: picture, then its caption, without roles."""

    kind: Literal["caption"] = "caption"
    layout: TemplateName = "caption"
    """The chat template that writes picture and caption one after the other."""
    prefix: bool = False
    """For encoder-decoders: the encoder reads the front of each caption, up to a random token, and
    the decoder writes the rest (prefix language modelling)."""
    smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each target that is spread over the whole vocabulary."""
    unsteered: float = Field(default=0.0, ge=0.0, le=1.0)
    """For models that write pictures as tokens: share of the rows answered with one picture and nothing else whose prompt is left
    out for one that drawing is led away from (`picture_words.drawing.away`; of `text` the empty one), so that guidance has that."""

    @property
    def template(self) -> str | None:
        return self.layout

    @property
    def weighs_tokens(self) -> bool:
        return True

    @property
    def sums_over_rows(self) -> bool:
        return True

    @property
    def prompts_left_out(self) -> float:
        return self.unsteered

    def build(
        self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]
    ) -> Objective:
        _check_unsteered(self.unsteered, processor)
        if self.prefix and self.smoothing:
            raise ConfigError("smoothing with prefix", expected="one of them", where="objective.smoothing")
        if not self.prefix:
            return _smoothed(self.smoothing)
        if not model.config.backbone.one_answer:
            raise ConfigError("prefix for an LLM that reads and writes in one go",
                              expected="an encoder-decoder", where="objective.prefix",
                              fix="prefix: false")  # fmt: skip
        return partial(_behind_a_prefix, processor.tokenizer.eos_id)


class InstructConfig(ObjectiveConfig):
    """Instruction tuning: the model's own chat template, loss on answers only."""

    kind: Literal["instruct"] = "instruct"
    word_noise: float = Field(default=0.0, ge=0.0)
    """For models that rank words for a picture: how uncertain their order is made
    (`VocabularyLookup.noised`)."""
    smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each target that is spread over the whole vocabulary."""
    unsteered: float = Field(default=0.0, ge=0.0, le=1.0)
    """For models that write pictures as tokens: share of the rows answered with one picture and nothing else whose prompt is left
    out for one that drawing is led away from (`picture_words.drawing.away`; of `text` the empty one), so that guidance has that."""

    @property
    def weighs_tokens(self) -> bool:
        return True

    @property
    def sums_over_rows(self) -> bool:
        return True

    @property
    def prompts_left_out(self) -> float:
        return self.unsteered

    def build(
        self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]
    ) -> Objective:
        _check_unsteered(self.unsteered, processor)
        if self.word_noise and self.smoothing:
            raise ConfigError("smoothing with word_noise", expected="one of them", where="objective.smoothing")
        if not self.word_noise:
            return _smoothed(self.smoothing)
        if not any(lane.lookup and lane.lookup.ranked for lane in model.config.lanes.values()):
            raise ConfigError(
                "word_noise for a model that ranks no words",
                where="objective.word_noise",
                fix="set lookup.ranked in a lane of the model, or leave word_noise out",
            )
        return partial(_with_noise, self.word_noise)


def next_token_losses(model: MultimodalModel, batch: Batch, smoothing: float = 0.0) -> Losses:
    """Cross-entropy of every learned token given all before it in its own sample.

    Args:
        smoothing: share of each target that is spread over the whole vocabulary.
    """
    batch = model.read(batch)
    return token_losses(model, batch, model(replace(batch, answers_only=True)).hidden_BTD, smoothing)


def token_losses(model: MultimodalModel, batch: Batch, hidden_BTD: Tensor, smoothing: float = 0.0) -> Losses:
    """The same of hidden states that are there already."""
    # Places for codes are no targets.
    batch = model.read(batch)
    hidden_ND, targets_N = learned(hidden_BTD, batch)
    count = len(targets_N)
    weights_N = None
    if batch.loss_weights_BT is not None:
        weights_N = batch.loss_weights_BT[:, 1:][batch.learn_BT[:, 1:]]
    words = model.config.backbone.vocab_size
    coded_N = targets_N >= words
    if model.code_tables is None or not bool(coded_N.any()):
        total, losses_N = _word_losses(model, hidden_ND, targets_N, weights_N, smoothing)
        return Losses(total, count, {"next_token": float(losses_N.detach().sum()) / max(1, count)})
    # Codes of pictures have a head of their own.
    text_N = ~coded_N
    scores_NC = model.code_tables.scores(hidden_ND[coded_N]).float()
    codes_N = F.cross_entropy(scores_NC, targets_N[coded_N] - words, reduction="none", label_smoothing=smoothing)
    total, losses_N = _word_losses(
        model, hidden_ND[text_N], targets_N[text_N], None if weights_N is None else weights_N[text_N], smoothing
    )
    total = total + (codes_N if weights_N is None else codes_N * weights_N[coded_N]).sum()
    summed = float(losses_N.detach().sum() + codes_N.detach().sum())
    return Losses(total, count, {"next_token": summed / max(1, count), "codes": float(codes_N.detach().mean())})


def _word_losses(
    model: MultimodalModel, hidden_ND: Tensor, targets_N: Tensor, weights_N: Tensor | None, smoothing: float
) -> tuple[Tensor, Tensor]:
    """The weighted sum of the losses of words, and each one's, which is not weighted: runs with other weights can be compared."""
    head = getattr(model.backbone, "head", None)
    # Only learned positions reach the vocabulary: with 49,152 words the full matrix of
    # logits would cost more memory than all layers together.
    if head is not None and not smoothing:
        weight_VD, scale = head
        return answer_loss(hidden_ND, weight_VD, targets_N, weights_N, scale=scale)
    logits_NV = model.logits(hidden_ND).float()
    losses_N = F.cross_entropy(logits_NV, targets_N, reduction="none", label_smoothing=smoothing)
    return (losses_N if weights_N is None else losses_N * weights_N).sum(), losses_N


def _check_unsteered(share: float, processor: Processor) -> None:
    if share and processor.frames is None:
        raise ConfigError("unsteered for a model that writes no pictures as tokens", where="objective.unsteered",
                          expected="a model with picture_words, or 0")  # fmt: skip


def _smoothed(smoothing: float) -> Objective:
    return partial(next_token_losses, smoothing=smoothing) if smoothing else next_token_losses


def _behind_a_prefix(closing: int, model: MultimodalModel, batch: Batch) -> Losses:
    return next_token_losses(model, cut_answers(batch, closing))


def cut_answers(batch: Batch, closing: int) -> Batch:
    """The batch with the front of every answer, up to a random token, as part of what is read.

    At least one token of each answer is left. A token `closing` that stood in front of the
    answer, where reading ends, then stands behind what was cut off.
    """
    ids_BT, learn_BT = batch.input_ids_BT.clone(), batch.learn_BT.clone()
    for ids_T, learn_T in zip(ids_BT, learn_BT, strict=True):
        places = learn_T.nonzero()[:, 0].tolist()
        if len(places) < 3:
            continue
        begin = places[0]
        cut = begin + int(torch.randint(0, len(places) - 1, ()))
        learn_T[begin:cut] = False
        if begin and int(ids_T[begin - 1]) == closing:
            ids_T[begin - 1 : cut] = ids_T[begin - 1 : cut].roll(-1)
    return replace(batch, input_ids_BT=ids_BT, learn_BT=learn_BT)


def _with_noise(noise: float, model: MultimodalModel, batch: Batch) -> Losses:
    with ExitStack() as stack:
        for lookup in model.lookups.values():
            stack.enter_context(cast(VocabularyLookup, lookup).noised(noise))
        return next_token_losses(model, batch)


def learned(hidden_BTD: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Hidden states in front of learned tokens, and those tokens."""
    mask_BT = batch.learn_BT[:, 1:]
    return hidden_BTD[:, :-1][mask_BT], batch.input_ids_BT[:, 1:][mask_BT]

"""Next-token cross-entropy on learned tokens: captions, or answers of conversations.

Sources: LLaVA (arXiv:2304.08485) stages 1 and 2.

Shape legend: B rows, T tokens, N learned tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
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
from sensorium.nn.answer_loss import AnswerLoss, answer_loss
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
    text_weight: float = Field(default=1.0, ge=0.0)
    picture_weight: float = Field(default=1.0, ge=0.0)
    """For models that write pictures as tokens: what the losses of text, markers of pictures among it, and of pictures' codes are
    multiplied by. The mean is over all learned tokens whose weight is above 0, each counted once (`loss_per: token`)."""
    z_loss: float = Field(default=0.0, ge=0.0)
    """What (log Z)^2 of each learned token, added to its loss, is multiplied by, Z being the sum of the exponentials of its scores
    (PaLM, arXiv:2204.02311; Chameleon, arXiv:2405.09818): it keeps scores from drifting together, which cross-entropy does not see."""

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
        weights = KindWeights(self.text_weight, self.picture_weight)
        _check_pictures(self.unsteered, weights, processor)
        if self.prefix and self.smoothing:
            raise ConfigError("smoothing with prefix", expected="one of them", where="objective.smoothing")
        if self.prefix and self.z_loss:
            raise ConfigError("z_loss with prefix", expected="one of them", where="objective.z_loss")
        if not self.prefix:
            return _plain(self.smoothing, weights, self.z_loss)
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
    text_weight: float = Field(default=1.0, ge=0.0)
    picture_weight: float = Field(default=1.0, ge=0.0)
    """For models that write pictures as tokens: what the losses of text, markers of pictures among it, and of pictures' codes are
    multiplied by. The mean is over all learned tokens whose weight is above 0, each counted once (`loss_per: token`)."""
    z_loss: float = Field(default=0.0, ge=0.0)
    """What (log Z)^2 of each learned token, added to its loss, is multiplied by, Z being the sum of the exponentials of its scores
    (PaLM, arXiv:2204.02311; Chameleon, arXiv:2405.09818): it keeps scores from drifting together, which cross-entropy does not see."""

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
        weights = KindWeights(self.text_weight, self.picture_weight)
        _check_pictures(self.unsteered, weights, processor)
        if self.word_noise and self.smoothing:
            raise ConfigError("smoothing with word_noise", expected="one of them", where="objective.smoothing")
        if self.word_noise and weights != EVEN:
            raise ConfigError("text_weight or picture_weight with word_noise", expected="one of them", where="objective.word_noise")
        if self.word_noise and self.z_loss:
            raise ConfigError("z_loss with word_noise", expected="one of them", where="objective.z_loss")
        if not self.word_noise:
            return _plain(self.smoothing, weights, self.z_loss)
        if not any(lane.lookup and lane.lookup.ranked for lane in model.config.lanes.values()):
            raise ConfigError(
                "word_noise for a model that ranks no words",
                where="objective.word_noise",
                fix="set lookup.ranked in a lane of the model, or leave word_noise out",
            )
        return partial(_with_noise, self.word_noise)


@dataclass(frozen=True, slots=True)
class KindWeights:
    """What the losses of text and of pictures' codes are multiplied by."""

    text: float = 1.0
    pictures: float = 1.0


EVEN = KindWeights()


def next_token_losses(
    model: MultimodalModel, batch: Batch, smoothing: float = 0.0, weights: KindWeights = EVEN, z_loss: float = 0.0
) -> Losses:
    """Cross-entropy of every learned token given all before it in its own sample.

    Args:
        smoothing: share of each target that is spread over the whole vocabulary.
        weights: of kinds of tokens; those that weigh nothing are not counted.
        z_loss: of (log Z)^2 beside it.
    """
    batch = model.read(batch)
    return token_losses(model, batch, model(replace(batch, answers_only=True)).hidden_BTD, smoothing, weights, z_loss)


def token_losses(
    model: MultimodalModel, batch: Batch, hidden_BTD: Tensor, smoothing: float = 0.0, weights: KindWeights = EVEN, z_loss: float = 0.0
) -> Losses:
    """The same of hidden states that are there already."""
    # Places for codes are no targets.
    batch = model.read(batch)
    hidden_ND, targets_N = learned(hidden_BTD, batch)
    told = count = len(targets_N)
    weights_N = None
    if batch.loss_weights_BT is not None:
        weights_N = batch.loss_weights_BT[:, 1:][batch.learn_BT[:, 1:]]
    if weights != EVEN:
        kinds_N = _kind_weights(model, targets_N, weights)
        count = int((kinds_N > 0).sum())
        weights_N = kinds_N if weights_N is None else weights_N * kinds_N
    words = model.config.backbone.vocab_size
    coded_N = targets_N >= words
    if model.code_tables is None or not bool(coded_N.any()):
        words_loss = _word_losses(model, hidden_ND, targets_N, weights_N, smoothing, z_loss)
        return Losses(words_loss.total, count, _parts([words_loss], told))
    # Codes of pictures have a head of their own.
    text_N = ~coded_N
    coded_weights_N, text_weights_N = (None if weights_N is None else weights_N[which_N] for which_N in (coded_N, text_N))
    scores_NC = model.code_tables.scores(hidden_ND[coded_N])
    codes = _scored(scores_NC, targets_N[coded_N] - words, coded_weights_N, smoothing, z_loss)
    text = _word_losses(model, hidden_ND[text_N], targets_N[text_N], text_weights_N, smoothing, z_loss)
    parts = _parts([text, codes], told) | {"codes": float(codes.losses_N.detach().mean())}
    return Losses(text.total + codes.total, count, parts)


def _parts(losses: Sequence[AnswerLoss], told: int) -> dict[str, float]:
    """The means over all tokens, unweighted: runs with other weights can be compared."""
    summed = {"next_token": [one.losses_N.detach().sum() for one in losses],
              "log_z_squared": [one.logs_N.detach().square().sum() for one in losses if one.logs_N is not None]}  # fmt: skip
    return {name: float(torch.stack(sums).sum()) / max(1, told) for name, sums in summed.items() if sums}


def _kind_weights(model: MultimodalModel, targets_N: Tensor, weights: KindWeights) -> Tensor:
    coded_N = torch.isin(targets_N, cast(Tensor, model.code_words))
    even_N = torch.ones(len(targets_N), device=targets_N.device)
    return torch.where(coded_N, even_N * weights.pictures, even_N * weights.text)


def _word_losses(
    model: MultimodalModel, hidden_ND: Tensor, targets_N: Tensor, weights_N: Tensor | None, smoothing: float, z_loss: float
) -> AnswerLoss:
    head = model.head
    # Only learned positions reach the vocabulary: with 49,152 words the full matrix of
    # logits would cost more memory than all layers together.
    if head is not None and not smoothing:
        weight_VD, scale = head
        return answer_loss(hidden_ND, weight_VD, targets_N, weights_N, scale=scale, z_loss=z_loss)
    return _scored(model.logits(hidden_ND), targets_N, weights_N, smoothing, z_loss)


def _scored(scores_NV: Tensor, targets_N: Tensor, weights_N: Tensor | None, smoothing: float, z_loss: float) -> AnswerLoss:
    """The same where scores of all words are there."""
    scores_NV = scores_NV.float()
    losses_N = F.cross_entropy(scores_NV, targets_N, reduction="none", label_smoothing=smoothing)
    logs_N = torch.logsumexp(scores_NV, dim=-1) if z_loss else None
    each_N = losses_N if logs_N is None else losses_N + z_loss * logs_N.square()
    return AnswerLoss((each_N if weights_N is None else each_N * weights_N).sum(), losses_N, logs_N)


def _check_pictures(unsteered: float, weights: KindWeights, processor: Processor) -> None:
    """Refuse what is for models that write pictures as tokens, of others, and weights that leave nothing to learn."""
    if not weights.text and not weights.pictures:
        raise ConfigError("text_weight 0 and picture_weight 0", expected="one of them above 0", where="objective")
    if (not unsteered and weights == EVEN) or processor.frames is not None:
        return
    if unsteered:
        raise ConfigError("unsteered for a model that writes no pictures as tokens", where="objective.unsteered",
                          expected="a model with picture_words, or 0")  # fmt: skip
    if weights != EVEN:
        raise ConfigError("text_weight or picture_weight for a model that writes no pictures as tokens", where="objective",
                          expected="a model with picture_words, or 1 for both")  # fmt: skip


def _plain(smoothing: float, weights: KindWeights, z_loss: float) -> Objective:
    if not smoothing and weights == EVEN and not z_loss:
        return next_token_losses
    return partial(next_token_losses, smoothing=smoothing, weights=weights, z_loss=z_loss)


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

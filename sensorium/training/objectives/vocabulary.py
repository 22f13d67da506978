"""Vocabulary alignment: visual tokens learn to predict the caption's words through the
LLM's own embedding matrix, without running the LLM.

The picture's score for a word is the log-mean-exp, over its visual tokens, of their scaled
cosine with the word's embedding; the target is the caption's set of words. Tokens in front of
the map (a summary of the whole picture) and those of the map are scored apart, so that either
learns to say what it can. The published relative is P-Former's decoupled pretraining
(arXiv:2307.07063).

Shape legend: M pictures, L tokens of one, D width, C candidate words of up to K pieces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from sensorium.core.batch import Batch, Example
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.sample import Sample
from sensorium.data.source import Source
from sensorium.model.lookup import (
    UNUSED,
    LookupConfig,
    VocabularyLookup,
    word_scores,
    word_vectors,
)
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.processor import Processor
from sensorium.text.telling import spelt_inside, telling_words
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.mixing import blend_features, draw_blend

MAX_ROWS_READ = 200_000


class VocabularyConfig(ObjectiveConfig):
    """Cosines are multiplied by `scale`; `norm_weight` keeps tokens as long as words; `mix`
    above 0 blends pictures in pairs (`mixing.draw_blend`)."""

    kind: Literal["vocabulary"] = "vocabulary"
    scale: float = 20.0
    norm_weight: float = 0.1
    mix: float = Field(default=0.0, ge=0)

    @property
    def template(self) -> str | None:
        return "caption"

    @property
    def runs_llm(self) -> bool:
        return False

    def build(
        self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]
    ) -> Objective:
        return VocabularyObjective(self, model, processor, sources)


class VocabularyObjective:
    """Holds the candidate words of the stage's captions."""

    def __init__(
        self,
        config: VocabularyConfig,
        model: MultimodalModel,
        processor: Processor,
        sources: Sequence[Source],
    ) -> None:
        self.config = config
        self.processor = processor
        # A stage's processor is its own, because this objective asks for a template.
        processor.require(one_picture)
        words: set[str] = set()
        for source in sources:
            for i in range(min(len(source), MAX_ROWS_READ)):
                try:
                    words |= caption_words(source[i])
                except DataError:
                    # Named, or skipped and listed, when training comes to this row.
                    continue
        lookup = _lookup(model)
        room = lookup.config if lookup else LookupConfig()
        spelling = {word: spelt_inside(word, processor.tokenizer)[: room.pieces] for word in words}
        spellings = sorted(set(spelling.values()))
        if len(words) > 1 and len(spellings) == 1:
            raise ConfigError(
                f"the first {room.pieces} tokens of every word are the same, so words cannot be told apart",
                fix="leave the vocabulary stage out for this language model",
            )
        if not spellings:
            raise DataError("no captions to learn words from", fix="give captioned pictures")
        column = {pieces: c for c, pieces in enumerate(spellings)}
        self._column = {word: column[pieces] for word, pieces in spelling.items()}
        filled = [list(pieces) + [UNUSED] * (room.pieces - len(pieces)) for pieces in spellings]
        self._candidates_CK = torch.tensor(filled, device=model.device)
        if lookup:
            lookup.choose(self._candidates_CK)

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        if "image" not in batch.media:
            raise DataError("a batch without pictures", expected="one picture in every sample")
        encoded = model.encode("image", batch.media["image"])
        count = len(encoded.grids)
        blend_MM = None
        if self.config.mix and model.projectors["image"].training:
            blend_MM = draw_blend(count, self.config.mix, encoded.values_ND)
            encoded = blend_features(encoded, blend_MM)
        # Before any lookup: what is taught here is which words a token stands for.
        features = model.project("image", encoded, batch.media["image"])
        tokens_ND = features.values_ND.float()
        length_N1 = tokens_ND.norm(dim=-1, keepdim=True)
        # Read at every step: an earlier stage may have taught the language model.
        embedding_VD = model.backbone.embedding.weight.detach()
        words_CD = word_vectors(self._candidates_CK, embedding_VD).float()
        norm_words = float(words_CD.norm(dim=-1).mean())
        lookup = _lookup(model)
        keys_CD = lookup.keys(embedding_VD).float() if lookup else words_CD
        scores_NC = word_scores(tokens_ND, keys_CD, self.config.scale)
        targets_MC = self._targets(batch, scores_NC.new_zeros(count, scores_NC.shape[1]))
        if blend_MM is not None:
            targets_MC = blend_MM.to(targets_MC) @ targets_MC
        words = scores_NC.new_zeros(())
        for scores_LC, grid, target_C in zip(
            scores_NC.split(features.lengths), features.grids, targets_MC, strict=True
        ):
            groups = [g for g in (scores_LC[: grid.prefix], scores_LC[grid.prefix :]) if len(g)]
            for group_LC in groups:
                score_C = group_LC.logsumexp(0) - math.log(len(group_LC))
                words = words - (target_C * score_C.log_softmax(dim=-1)).sum() / len(groups)
        norm = ((length_N1 / norm_words - 1) ** 2).mean() * count
        total = words + self.config.norm_weight * norm
        parts = {"words": float(words.detach()) / count, "norm": float(norm.detach()) / count}
        return Losses(total, count, parts)

    def _targets(self, batch: Batch, like_MC: Tensor) -> Tensor:
        """Rows that spread their mass evenly over the caption's words."""
        targets_MC = torch.zeros_like(like_MC)
        texts = learned_texts(batch, self.processor)
        if len(texts) != len(like_MC):
            raise DataError(
                f"{len(texts)} captions and {len(like_MC)} pictures in a batch",
                expected="exactly one picture in every sample",
            )
        for m, text in enumerate(texts):
            columns = {self._column[word] for word in telling_words(text) if word in self._column}
            for column in columns:
                targets_MC[m, column] = 1.0 / len(columns)
        return targets_MC


def _lookup(model: MultimodalModel) -> VocabularyLookup | None:
    return cast(VocabularyLookup, model.lookups["image"]) if "image" in model.lookups else None


def one_picture(example: Example) -> None:
    """What the objective asks of a row.

    Raises:
        DataError: the Example does not hold exactly one picture.
    """
    media = example.media.get("image")
    count = len(media.plans) if media is not None else 0
    if count == 1:
        return
    cut = f" after {example.truncated_tokens} tokens were cut" if example.truncated_tokens else ""
    raise DataError(
        f"sample {example.id!r} holds {count} pictures{cut}",
        expected="exactly one, for vocabulary alignment",
        fix="leave the row out, or skip such rows with on_bad_row: skip",
    )


def learned_texts(batch: Batch, processor: Processor) -> list[str]:
    """The learned text of every sample, in media order (one picture a sample)."""
    texts: list[str] = []
    for ids_T, learn_T, segments_T, branches_T in zip(
        batch.input_ids_BT, batch.learn_BT, batch.segments_BT, batch.branches_BT, strict=True
    ):
        for number in range(1, int(segments_T.max()) + 1):
            chosen = (segments_T == number) & learn_T
            # The last word of one pair and the first of the next are two words.
            pairs = [ids_T[chosen & (branches_T == k)] for k in branches_T[chosen].unique()]
            texts.append(" ".join(processor.tokenizer.decode(ids.tolist()) for ids in pairs))
    return texts


def caption_words(sample: Sample) -> set[str]:
    """The telling words of a sample's answers.

    Raises:
        DataError: the sample does not hold exactly one picture.
    """
    if sum(1 for part in sample.media() if part.type == "image") != 1:
        raise DataError(
            f"sample {sample.id!r} does not hold exactly one picture",
            expected="captioned pictures for vocabulary alignment",
        )
    return set().union(*(telling_words(m.text) for m in sample.messages if m.role == "assistant"))

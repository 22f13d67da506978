"""Pictures found by their descriptions: a Responder's share for requests with pictures to choose from.

A model with a retrieval head (FROMAGe, arXiv:2301.13823) writes its signal token behind the request, by force, and compares the state there
with each picture. One without, whose lane ranks words for a picture, goes by how likely the words of the request are.

Shape legend: M pictures, N requests, V width of features, C width of the space, D LLM width, W candidate words, L tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from sensorium.core.batch import MediaBatch
from sensorium.core.errors import ConfigError
from sensorium.core.responder import Answer, Request
from sensorium.core.sample import Message, Part, Sample
from sensorium.inference.making import extended
from sensorium.model.device import media_to_device, to_device
from sensorium.model.finding import finding_way, picture_vectors
from sensorium.model.lookup import VocabularyLookup, word_scores
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor

AT_ONCE = 32
NAMED = 100
"""Numbers in an answer, at most."""
ASKING = frozenset(["find", "me", "show", "search", "for", "picture", "of"])
"""Words of a request that describe nothing."""


@dataclass(slots=True)
class Finder:
    """Ranks pictures for requests with one model."""

    model: MultimodalModel
    processor: Processor
    _seen: tuple[Any, Tensor] | None = field(default=None, init=False)
    """The last gallery and what stands for its pictures."""

    def respond(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """One answer for each request, all of which have pictures."""
        for request in requests:
            scores_M = self.scores(request)
            best = scores_M.argsort(descending=True, stable=True)[:NAMED].tolist()
            yield Answer(request.id, " ".join(map(str, best)), len(best))

    @torch.inference_mode()
    def scores(self, request: Request) -> Tensor:
        """How well each picture fits, (M,).

        Raises:
            ConfigError: the model can compare no text with a picture.
        """
        if any(way.projector.kind == "retrieval" for way in self.model.config.ways.values()):
            pictures_MC = self._gallery(request, partial(picture_vectors, self.model))
            return pictures_MC @ self.vector(request.messages, request.root)
        if "image" in self.model.lookups:
            return self._by_words(request)
        raise ConfigError("a model that cannot find pictures", where="model.hands",
                          expected="hands.image with a projector of kind retrieval, or a lane with a lookup of words")  # fmt: skip

    @torch.inference_mode()
    def vector(self, messages: tuple[Message, ...], root: Path | None = None) -> Tensor:
        """What a conversation asks for, (C,)."""
        prompt = self.processor.prompt(messages, root)
        whole = extended(prompt, self.processor.signals["image"])
        batch = to_device(collate([[whole]], self.processor.tokenizer.pad_id), self.model.device)
        hidden_BTD = self.model(batch).hidden_BTD
        return self.model.condition(finding_way(self.model).name, hidden_BTD, batch.input_ids_BT, [(0, len(prompt))])[0, 0]

    def _gallery(self, request: Request, look: Callable[[MediaBatch], Tensor]) -> Tensor:
        if self._seen is None or self._seen[0] is not request.pictures:
            self._seen = (request.pictures, self._looked_at(request.pictures, request.root, look))
        return self._seen[1]

    def _looked_at(self, pictures: Sequence[Any], root: Path | None, look: Callable[[MediaBatch], Tensor]) -> Tensor:
        rows: list[Tensor] = []
        for start in range(0, len(pictures), AT_ONCE):
            asked = [Sample((Message("user", (Part("image", one),)),), root=root) for one in pictures[start : start + AT_ONCE]]
            examples = [self.processor.encode(sample, answer_next=True) for sample in asked]
            media = collate([[example] for example in examples], self.processor.tokenizer.pad_id).media
            rows.append(look(media_to_device(media, self.model.device)["image"]))
        return torch.cat(rows)

    def _by_words(self, request: Request) -> Tensor:
        """The mean log-likelihood of the request's words that are candidates."""
        lookup = cast(VocabularyLookup, self.model.lookups["image"])
        likely_MW = self._gallery(request, self._word_chances)
        columns = self._columns(request.messages[-1].text, lookup)
        return likely_MW[:, columns].mean(dim=1) if columns else likely_MW.new_zeros(len(likely_MW))

    def _word_chances(self, media: MediaBatch) -> Tensor:
        """Of each candidate word for each picture as a whole, as logarithms, (M, W)."""
        lookup = cast(VocabularyLookup, self.model.lookups["image"])
        projected = self.model.projected("image", media)
        keys_WD = lookup.keys(self.model.backbone.embedding.weight)
        rows: list[Tensor] = []
        for tokens_LD, grid in zip(projected.values_ND.split(projected.lengths), projected.grids, strict=True):
            front_LD = tokens_LD[: grid.prefix] if grid.prefix else tokens_LD
            scores_LW = word_scores(front_LD.float(), keys_WD.float(), lookup.config.scale)
            rows.append(scores_LW.logsumexp(dim=0).log_softmax(dim=-1))
        return torch.stack(rows)

    def _columns(self, text: str, lookup: VocabularyLookup) -> list[int]:
        """Places of the words of a text among the candidates."""
        place = {tuple(row): c for c, row in enumerate(lookup.pieces_CK.tolist())}
        found: list[int] = []
        for word in (w for w in re.findall(r"[a-z]+", text.lower()) if w not in ASKING):
            ids = self.processor.tokenizer.encode(" " + word)[: lookup.config.pieces]
            column = place.get((*ids, *[-1] * (lookup.config.pieces - len(ids))))
            found += [] if column is None else [column]
        return found

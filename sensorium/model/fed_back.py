"""Pictures that are written embedding by embedding, each read before the next (Emu, arXiv:2307.05222; Emu2, arXiv:2312.13286).

Emu's head foretells what its input projector makes of a picture, in the LLM's own space. Emu2's foretells the pooled features of
the encoder, which the projector's map brings to the LLM's width.

Shape legend: B pictures, N embeddings, C their width, D LLM width, M embeddings laid end to end, T tokens.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from sensorium.core.batch import Features
from sensorium.core.hands import MadeKind
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.continuous import continuous_embeddings


def as_input(model: MultimodalModel, kind: MadeKind, embeddings: Tensor) -> Tensor:
    """What the LLM reads of embeddings, (..., C) -> (..., D)."""
    if model.config.hands[kind].reader.feeds_back == "llm":
        return embeddings
    return cast(Any, model.projectors[kind]).widen(embeddings)


def true_embeddings(model: MultimodalModel, kind: MadeKind, encoded: Features, read: Features) -> Tensor:
    """What embeddings are to become, of all pictures of a batch end to end, (M, C); no gradient goes there.

    Args:
        encoded: what the encoder made of the pictures.
        read: what the LLM reads of them.
    """
    if model.config.hands[kind].reader.feeds_back == "llm":
        return read.values_ND.detach()
    return cast(Any, model.projectors[kind]).pooled(encoded).values_ND.detach()


class Row:
    """One row that grows by embeddings, from a cache."""

    def __init__(self, model: MultimodalModel, embeds_1TD: Tensor, positions_1T: Tensor) -> None:
        self.model = model
        self.cache: Any = model.backbone.new_cache()
        self.last = int(positions_1T[0, -1])
        self.hidden_1D: Tensor = model.backbone(embeds_1TD, positions_BT=positions_1T, cache=self.cache)[:, -1]
        """The state at the end."""

    def read(self, embeds_1D: Tensor) -> Tensor:
        """Add one, and give the state at it."""
        self.last += 1
        positions_11 = torch.full((1, 1), self.last, device=embeds_1D.device)
        self.hidden_1D = self.model.backbone(embeds_1D[:, None], positions_BT=positions_11, cache=self.cache)[:, -1]
        return self.hidden_1D

    def say(self, token: int) -> Tensor:
        """Add a token, and give the state at it."""
        return self.read(self.model.backbone.embed(torch.tensor([token], device=self.hidden_1D.device)))

    def picture(self, kind: MadeKind) -> Tensor:
        """The embeddings that follow, (1, N, C); the row has read all of them then."""
        count = self.model.config.ways[kind].reads
        made = list(continuous_embeddings(self.model.hands[kind], lambda x: self.read(as_input(self.model, kind, x)), self.hidden_1D, count))
        self.read(as_input(self.model, kind, made[-1]))
        return torch.stack(made, dim=1)

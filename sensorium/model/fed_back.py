"""Pictures that are written embedding by embedding, each read before the next (Emu, arXiv:2307.05222; Emu2, arXiv:2312.13286).

Emu's head foretells what its input projector makes of a picture, in the LLM's own space. Emu2's foretells the pooled features of
the encoder, which the projector's map brings to the LLM's width.

Shape legend: B pictures, N embeddings, C their width, D LLM width, M embeddings laid end to end.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from sensorium.core.batch import Features
from sensorium.core.hands import MadeKind
from sensorium.model.multimodal import MultimodalModel


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

"""The part of a model that compares what is asked for with pictures."""

from __future__ import annotations

from sensorium.model.multimodal import MultimodalModel
from sensorium.output_projectors.retrieval import RetrievalHead


def retrieval_head(model: MultimodalModel) -> RetrievalHead | None:
    """What compares requests with pictures; None: the model has none."""
    heads = [head for kind, head in model.hands.items() if kind == "image" and isinstance(head, RetrievalHead)]
    return heads[0] if heads else None

"""Which frozen layers of a model get a second and third copy of their weights for faster products (`nn/frozen_linear.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from sensorium.backbones.causal_lm import CausalLM
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.frozen_linear import frozen_linears, laid_out, onednn_is_faster

SHARE = 8
"""The copies may take one part in so many of the memory. Of all memory, not of what is free: a run that resumes must decide as it did."""


def layout_bytes(model: MultimodalModel, memory: int | None) -> int:
    """What the copies take at most, forward and back; 0: none are made.

    Args:
        memory: all there is, in bytes; None: unknown.
    """
    if memory is None or not onednn_is_faster():
        return 0
    size = sum(2 * 4 * layer.weight.numel() for layer in _layers(model))
    return size if size <= memory // SHARE else 0


@contextmanager
def laying_out(model: MultimodalModel, on: bool) -> Iterator[None]:
    """While the block lasts, frozen linear layers multiply by copies of their weights."""
    with laid_out(_layers(model) if on else ()):
        yield


def _layers(model: MultimodalModel) -> list[nn.Linear]:
    # Losses multiply by the head's own weights.
    head = model.backbone.lm.get_output_embeddings() if isinstance(model.backbone, CausalLM) else None
    return frozen_linears(module for module in model.modules() if module is not head)

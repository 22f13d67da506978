"""Which layers of a model have their products by oneDNN: frozen ones by a second and third copy of their weights (`nn/frozen_linear.py`),
those that learn by the weights themselves (`nn/learned_linear.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from sensorium.backbones.causal_lm import CausalLM
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.frozen_linear import frozen_linears, laid_out
from sensorium.nn.learned_linear import learned_linears, multiplied
from sensorium.nn.onednn import onednn_is_faster, reads_weights_as_they_lie

SHARE = 8
"""The copies may take one part in so many of the memory. Of all memory, not of what is free: a run that resumes must decide as it did."""


def layout_bytes(model: MultimodalModel, memory: int | None) -> int:
    """What the copies take at most, forward and back; 0: none are made.

    Args:
        memory: all there is, in bytes; None: unknown.
    """
    if memory is None or not onednn_is_faster():
        return 0
    size = sum(2 * 4 * layer.weight.numel() for layer in frozen_linears(_modules(model)))
    return size if size <= memory // SHARE else 0


@contextmanager
def laying_out(model: MultimodalModel, copies: bool) -> Iterator[None]:
    """While the block lasts, linear layers multiply by oneDNN: frozen ones where there may be copies, others where it needs none."""
    plain = reads_weights_as_they_lie()
    with laid_out(frozen_linears(_modules(model)) if copies else ()), multiplied(learned_linears(_modules(model)) if plain else ()):
        yield


def _modules(model: MultimodalModel) -> list[nn.Module]:
    # Losses multiply by the head's own weights.
    head = model.backbone.lm.get_output_embeddings() if isinstance(model.backbone, CausalLM) else None
    return [module for module in model.modules() if module is not head]

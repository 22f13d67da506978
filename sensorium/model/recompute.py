"""Layers of the LLM that keep their inputs alone and run again in the backward pass (arXiv:1604.06174)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from sensorium.backbones.causal_lm import CausalLM
from sensorium.model.multimodal import MultimodalModel


def can_recompute(model: MultimodalModel) -> bool:
    """Whether the LLM's layers may run again by themselves: nothing from outside reaches into them."""
    lm = getattr(model.backbone, "lm", None)
    return (
        isinstance(model.backbone, CausalLM)
        and model.config.fusion.kind == "splice"
        and bool(getattr(lm, "supports_gradient_checkpointing", False))
    )


@contextmanager
def recomputing(model: MultimodalModel, on: bool) -> Iterator[None]:
    """While the block lasts, the LLM's layers keep their inputs alone."""
    if not on:
        yield
        return
    backbone = model.backbone
    assert isinstance(backbone, CausalLM)
    backbone.lm.activation_checkpointing_enable({"use_reentrant": False})
    layers: list[nn.Module] = backbone.decoder_layers()
    modes = [layer.training for layer in layers]
    for layer in layers:
        # transformers recomputes in training mode only; the layer's own flag moves no dropout, whose
        # modules lie inside and stay as they are.
        layer.training = True
    try:
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.training = mode
        backbone.lm.activation_checkpointing_disable()

"""Dropout of what each layer of the LLM adds to its input, while a stage trains.

Of what its attention adds and of what its feed-forward part adds, some numbers are set to zero and the others made larger by as much
(Chameleon, arXiv:2405.09818, needs both to stay stable at 7B). Layers of transformers' Llama and its like have no such dropout. Adapters, and the
decoders of BLIP, Kosmos-2 and T5, have their own, which their configs set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn import functional as F

from sensorium.backbones.causal_lm import CausalLM
from sensorium.core.errors import ConfigError
from sensorium.model.learning import Learn, learning_modules
from sensorium.model.multimodal import MultimodalModel

NAMES = ("self_attn", "mlp")
"""What families call the two in their layers."""


def check_dropping(model: MultimodalModel, learns: Sequence[Learn]) -> None:
    """Refuse dropout that would not act.

    Raises:
        ConfigError: the LLM's layers are of another make, or none of them learns.
    """
    adding = _adding(model)
    learning = {id(part) for learn in learns for module in learning_modules(model, learn) for part in module.modules()}
    if not any(id(part) in learning for part in adding):
        raise ConfigError("dropout in a stage in which no layer of the LLM learns", where="dropout", expected="learns: [{part: backbone, ...}]",
                          fix="dropout: 0; a low-rank adapter has a dropout of its own, model.adapter.dropout")  # fmt: skip


@contextmanager
def dropping(model: MultimodalModel, share: float) -> Iterator[None]:
    """While the block lasts, layers of the LLM that are in training mode drop this share of what they add."""
    if not share:
        yield
        return

    def drop(module: nn.Module, _: Any, output: Any) -> Any:
        # An attention's states come with its weights.
        if isinstance(output, tuple):
            return (F.dropout(output[0], share, module.training), *output[1:])
        return F.dropout(output, share, module.training)

    handles = [part.register_forward_hook(drop) for part in _adding(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adding(model: MultimodalModel) -> list[nn.Module]:
    """Attention and feed-forward part of each layer.

    Raises:
        ConfigError: the LLM's layers have no such parts.
    """
    layers = model.backbone.decoder_layers() if isinstance(model.backbone, CausalLM) else []
    found: list[nn.Module] = [getattr(layer, name) for layer in layers for name in NAMES if hasattr(layer, name)]
    if not layers or len(found) < len(NAMES) * len(layers):
        raise ConfigError(f"dropout for an LLM of kind {model.config.backbone.kind!r}, whose layers are no self_attn and mlp", where="dropout",
                          expected="a Llama or its like", fix="dropout: 0, and its own in model.backbone.arch where it has one")  # fmt: skip
    return found

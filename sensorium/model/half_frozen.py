"""The LLM's frozen linear layers in half precision, while a stage computes in it.

Autocast turns a weight into half precision wherever a product needs it, and for layers that do not learn it does so in every pass and
keeps what it made until the backward pass has read it: of a frozen LLM of 7 B parameters 13 GB beside the 26 GB that they are in fp32. Turned
once, they are the same numbers in the same products, and nothing else of the layers changes. Behind the stage they are what they were, to the
last bit: those that half precision does not hold wait on the host meanwhile, in the smallest format that holds them.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sensorium.model.config import LoraConfig
from sensorium.model.multimodal import MultimodalModel

HALF = torch.bfloat16
"""What autocast computes in here."""


def frozen_layers(model: MultimodalModel, saved: Collection[str]) -> list[nn.Linear]:
    """The LLM's plain linear layers that neither learn nor are read by anything but their own product.

    Args:
        saved: names of tensors that checkpoints hold, as they are at that moment.
    """
    adapter = model.config.adapter
    if isinstance(adapter, LoraConfig) and adapter.dora:
        return []  # Its products are weighed by the norms of the weights.
    backbone = model.backbone
    tables = {id(module.weight) for module in backbone.modules() if isinstance(module, nn.Embedding)}
    # Losses multiply by the head's weights without the layer. Encoders of text have none.
    find = getattr(getattr(backbone, "lm", None), "get_output_embeddings", None)
    head = None if find is None else find()
    return [
        module for name, module in backbone.named_modules()
        if type(module) is nn.Linear and module is not head and type(module.weight) is nn.Parameter
        and module.weight.dtype == torch.float32 and not module.weight.requires_grad
        and id(module.weight) not in tables and f"backbone.{name}.weight" not in saved
    ]  # fmt: skip


@contextmanager
def half_frozen(layers: Collection[nn.Linear]) -> Iterator[None]:
    """While the block lasts, these layers' weights are in half precision; it must be one in which autocast is on.

    A layer that learns when the block begins is left alone.
    """
    turned: list[tuple[nn.Linear, Tensor | None]] = []
    try:
        for layer in layers:
            if not layer.weight.requires_grad:
                turned.append((layer, _kept(layer.weight)))
                layer.weight.data = layer.weight.data.to(HALF)
        _forget_programs(turned)
        yield
    finally:
        for layer, whole in turned:
            weight = layer.weight.data
            layer.weight.data = weight.float() if whole is None else whole.to(weight.device).float()
        _forget_programs(turned)


def _forget_programs(turned: Collection[object]) -> None:
    """Those that torch 2.11 compiled do not look whether a weight's format is what it was, and would read other bytes as numbers; 2.13's do."""
    if turned and "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def _kept(weight: Tensor) -> Tensor | None:
    """What the weights are made again from: on the host, in the smallest format that holds them; None: half precision itself does."""
    values = weight.detach()
    for dtype in (HALF, torch.float16):
        small = values.to(dtype)
        if torch.equal(small.float(), values):
            return None if dtype == HALF else small.to("cpu", copy=True)
    return values.to("cpu", copy=True)

"""Decoder layers whose linear layers have second weights for some tokens.

CogVLM's visual expert (arXiv:2311.03079): what attention mixes is shared, every matrix is not.
Choosing each matrix by token is the same as choosing the feed-forward layer as a whole, because what
lies between its matrices works on every token alone.

Shape legend: B rows, T tokens, N = B T of them, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sensorium.backbones.packed_mask import layer_types
from sensorium.core.errors import ConfigError
from sensorium.nn.token_experts import LayerWork, TokenExperts, linear_paths

FAMILIES = ("llama", "mistral", "opt", "qwen2")
"""Model types of transformers whose layers run each linear layer once, on all tokens, in order."""


def check_experts(config: Any) -> None:
    """Refuse language models that cannot have experts.

    Args:
        config: of the transformers model.

    Raises:
        ConfigError: the model is of another family, or its attention has a window: tokens of a
            picture share one position, so that positions do not say how far away a token is.
    """
    if config.model_type not in FAMILIES:
        raise ConfigError(
            f"a visual expert in a language model of type {config.model_type!r}",
            expected=f"one of {', '.join(FAMILIES)}",
            where="model.fusion",
            fix="use another language model, or fusion: {kind: splice}",
        )
    kinds = layer_types(config)
    if kinds != ["full_attention"]:
        raise ConfigError(
            f"a visual expert in a language model with layers of type {', '.join(kinds)}",
            expected="full_attention throughout",
            where="model.fusion",
            fix="set sliding_window: null in the backbone's arch, or use another language model",
        )


@contextmanager
def work_in(layers: Sequence[Any], work: LayerWork) -> Iterator[None]:
    """Run experts, and what comes behind self-attention, while the block lasts."""
    handles: list[RemovableHandle] = []
    for index, layer in enumerate(layers):
        handles += _behind_attention(layer, partial(work.attended, index))
    try:
        with experts_in(layers, work.experts) if work.experts else nullcontext():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _behind_attention(
    layer: Any, added: Callable[[Tensor], Tensor]
) -> tuple[RemovableHandle, RemovableHandle]:
    """Hooks that add to what a layer's self-attention gives; the layer adds the sum to its input."""
    inputs: list[Tensor] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append(args[0] if args else kwargs["hidden_states"])

    def after(module: nn.Module, args: tuple[Any, ...], output: tuple[Any, ...]) -> tuple[Any, ...]:
        return output[0] + added(inputs.pop() + output[0]), *output[1:]

    return (
        layer.register_forward_pre_hook(before, with_kwargs=True),
        layer.self_attn.register_forward_hook(after),
    )


@contextmanager
def experts_in(layers: Sequence[nn.Module], tokens: TokenExperts) -> Iterator[None]:
    """Run the experts in the decoder layers while the block lasts; no token runs through both."""
    mask_N = tokens.mask_BT.flatten()
    own_N, theirs_N = (~mask_N).nonzero().squeeze(1), mask_N.nonzero().squeeze(1)
    back_N = torch.cat([own_N, theirs_N]).argsort()
    handles: list[RemovableHandle] = []
    for layer, experts in zip(layers, tokens.layers, strict=True):
        for path in linear_paths(experts):
            handles += _replace(
                layer.get_submodule(path), experts.get_submodule(path), own_N, theirs_N, back_N
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _replace(
    linear: nn.Module, expert: nn.Module, own_N: Tensor, theirs_N: Tensor, back_N: Tensor
) -> tuple[RemovableHandle, RemovableHandle]:
    """Hooks that lead a linear layer's own tokens through it and the others through its expert."""
    inputs: list[Tensor] = []

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        inputs.append(args[0])
        return args[0].flatten(0, -2)[own_N], *args[1:]

    def after(module: nn.Module, args: tuple[Any, ...], own_ND: Tensor) -> Tensor:
        x = inputs.pop()
        theirs_ND = expert(x.flatten(0, -2)[theirs_N])
        return torch.cat([own_ND, theirs_ND])[back_N].unflatten(0, x.shape[:-1])

    return linear.register_forward_pre_hook(before), linear.register_forward_hook(after)

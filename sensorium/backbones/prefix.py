"""Prefix tuning: learned keys and values in front of every row, in every layer of a frozen LLM.

Prefix-Tuning (arXiv:2101.00190), as peft's `PrefixTuning` has it: K vectors of keys and values for each layer lie
in the cache before the row begins, keys without rotary positions, and the row's own positions begin at K. Every
token of every sample sees them, so packed rows, padding and caching change nothing. With `hidden` the vectors come
from an embedding through two layers, which the paper found steadier to train.

A window would be counted over padding too, and hide the prefix from tokens that are not far from it: layers
with windows are refused.

Shape legend: B rows, T tokens, D width, K prefix vectors, L layers, N key heads, E width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sensorium.backbones.packed_mask import layer_types
from sensorium.core.errors import ConfigError

PREFIX_NAME = "prefix_tuning"
"""Of the module that holds the prefix, beside the language model."""
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "opt", "gpt2", "gpt_neox")
"""Model types of transformers whose layers all read and extend the cache alike, and for which the tests show it."""


class Prefix(nn.Module):
    """Keys and values of all layers."""

    def __init__(self, config: Any, length: int, hidden: int | None, like: Tensor) -> None:
        """Start as peft does: standard normal vectors.

        Args:
            config: of the transformers model.
            length: K.
            hidden: width between the two layers; None: the vectors themselves learn.
            like: a weight whose device and format are right.
        """
        super().__init__()
        self.length = length
        self.layers: int = config.num_hidden_layers
        self.heads: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        each, all_layers = self.heads * width, 2 * self.layers * self.heads * width
        kind: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        self.embedding = nn.Embedding(length, all_layers if hidden is None else each, **kind)
        self.transform: nn.Module = nn.Identity()
        if hidden is not None:
            self.transform = nn.Sequential(
                nn.Linear(each, hidden, **kind), nn.Tanh(), nn.Linear(hidden, all_layers, **kind)
            )

    def vectors(self) -> Tensor:
        """(K, 2 L N E): of each layer the keys, then the values, as peft stores them."""
        return self.transform(self.embedding.weight)

    def filled(self, cache: Any, embeds_BTD: Tensor) -> Any:
        """The cache with the prefix in it; one that has been begun is left as it is.

        Args:
            cache: None: a new one.
        """
        from transformers import DynamicCache

        cache = DynamicCache() if cache is None else cache
        if cache.get_seq_length() > 0:
            return cache
        device, dtype = embeds_BTD.device.type, embeds_BTD.dtype
        if torch.is_autocast_enabled(device):
            # Keys of the row come in this format; the cache takes the wider of both.
            dtype = torch.get_autocast_dtype(device)
        vectors_KLNE = self.vectors().to(dtype).unflatten(1, (2 * self.layers, self.heads, -1))
        vectors_LNKE = vectors_KLNE.permute(1, 2, 0, 3)
        for layer in range(self.layers):
            key, value = (vectors_LNKE[2 * layer + i].expand(len(embeds_BTD), -1, -1, -1) for i in (0, 1))
            cache.update(key, value, layer)
        return cache

    def in_front(self, mask: Tensor) -> Tensor:
        """A mask of tokens, (B, T) or (B, 1, T, T), with columns for the prefix, which all see."""
        return torch.cat([mask.new_ones(*mask.shape[:-1], self.length), mask], dim=-1)


def check_prefix(config: Any) -> None:
    """Can a language model of this transformers config have a prefix?

    Raises:
        ConfigError: its layers do not all read the whole cache.
    """
    kinds = layer_types(config)
    if config.model_type not in FAMILIES or kinds != ["full_attention"]:
        raise ConfigError(
            f"a prefix for a language model of type {config.model_type!r} with layers of type {', '.join(kinds)}",
            expected=f"one of {', '.join(FAMILIES)}, without windows",
            where="model.adapter",
            fix="use another language model, or adapter: {kind: lora}",
        )


def build_prefix(config: Any, length: int, hidden: int | None, like: Tensor) -> Prefix:
    """A prefix for a language model.

    Args:
        config: of the transformers model.

    Raises:
        ConfigError: its layers do not all read the whole cache.
    """
    check_prefix(config)
    return Prefix(config, length, hidden, like)

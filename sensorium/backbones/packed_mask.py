"""The attention of packed rows: inside one sample or one of its separate turns, and as far as
each layer reaches.

Shape legend: B rows, T tokens.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sensorium.core.errors import ConfigError
from sensorium.nn.attention import segment_mask

# Layers that mix no tokens need no mask; the others are in transformers' own words.
MIXES_NOTHING = ("moe", "mlp", "dense", "sparse")


def packed_mask(
    config: Any, segments_BT: Tensor, positions_BT: Tensor, branches_BT: Tensor | None = None
) -> dict[str, Tensor]:
    """The masks of a decoder by type of layer: (B, 1, T, T), True where attention is allowed.

    Args:
        config: of the transformers model, or of its text part.
        segments_BT: which sample of its row a token belongs to; 0 is padding.
        positions_BT: place in the sample, from 0; each branch counts on from what they share.
        branches_BT: which of its sample's separate turns a token belongs to; all see 0.

    Raises:
        ConfigError: a type of layer carries a state along the row, across samples.
    """
    causal = segment_mask(segments_BT, branches_BT)
    masks: dict[str, Tensor] = {}
    for kind in layer_types(config):
        if kind == "full_attention":
            masks[kind] = causal
        elif kind == "sliding_attention":
            masks[kind] = causal & _in_window(positions_BT, int(config.sliding_window))
        elif kind == "chunked_attention":
            masks[kind] = causal & _in_chunk(positions_BT, int(config.attention_chunk_size))
        else:
            raise ConfigError(
                f"packed rows or separate turns for a language model with layers of type {kind!r}",
                expected="attention layers, which a mask can keep inside one sample",
                fix="set pack: false in the stage, with a token_budget that fills batches with samples of like length, "
                "and leave separate_turns out of the data",
            )
    return masks


def layer_types(config: Any) -> list[str]:
    """Types of the layers that mix tokens, each once, in transformers' words; families that
    name none have one throughout, told by its reach."""
    named: list[str] | None = getattr(config, "layer_types", None)
    if named:
        return [kind for kind in dict.fromkeys(named) if kind not in MIXES_NOTHING]
    for kind, reach in (("sliding_attention", "sliding_window"),
                        ("chunked_attention", "attention_chunk_size")):  # fmt: skip
        # A config file may hold a key that its family does not know and never reads.
        if hasattr(type(config), reach) and getattr(config, reach):
            return [kind]
    return ["full_attention"]


def _in_window(positions_BT: Tensor, window: int) -> Tensor:
    """Whether a query is fewer than `window` tokens after a key."""
    return (positions_BT[:, None, :, None] - positions_BT[:, None, None, :]) < window


def _in_chunk(positions_BT: Tensor, chunk: int) -> Tensor:
    """Whether query and key are in one chunk, counted from the sample's first token."""
    number_BT = positions_BT.div(chunk, rounding_mode="floor")
    return number_BT[:, None, :, None] == number_BT[:, None, None, :]

"""BLIP's text layers (BERT's with cross-attention in each), run one by one.

The layers are transformers' own. Its models leave out the mask over what is attended to, so that
padded questions would be read; here it is applied.

Shape legend: B rows, Q tokens that ask, K keys, E width of what is attended to, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sensorium.nn.cross_media import CrossMedia


def embedded(embeddings: Any, words_BTD: Tensor, positions_BT: Tensor) -> Tensor:
    """Words with their places, normed."""
    places_BTD = embeddings.position_embeddings(positions_BT)
    return embeddings.dropout(embeddings.LayerNorm(words_BTD + places_BTD))


def run_layers(
    layers: Iterable[Any], x_BQD: Tensor, mask_B1QK: Tensor, media: CrossMedia | None, cache: Any = None
) -> Tensor:
    """Hidden states behind the last layer.

    Args:
        mask_B1QK: True where a token attends to another.
        media: what cross-attention reads; None, and a token that sees nothing, skips it.
        cache: an `EncoderDecoderCache` to read and extend.
    """
    mask_B1QK = _added(mask_B1QK, x_BQD)
    for layer in layers:
        x_BQD, _ = layer.attention(x_BQD, attention_mask=mask_B1QK, past_key_values=cache)
        if media is not None:
            sees_BQ1 = media.sees_BTK.any(dim=-1, keepdim=True)
            mixed_BQD, _ = layer.crossattention.self(
                x_BQD,
                encoder_hidden_states=media.media_BKE,
                # A softmax over no keys is not a number; what comes of it is not taken.
                encoder_attention_mask=_added((media.sees_BTK | ~sees_BQ1)[:, None], x_BQD),
                past_key_values=cache,
            )
            x_BQD = torch.where(sees_BQ1, layer.crossattention.output(mixed_BQD, x_BQD), x_BQD)
        x_BQD = layer.feed_forward_chunk(x_BQD)
    return x_BQD


def cached_mask(mask_BK: Tensor, queries: int) -> Tensor:
    """Causal attention of the last tokens to all real ones, (B, 1, Q, K)."""
    keys = mask_BK.shape[1]
    causal_QK = torch.ones(queries, keys, dtype=torch.bool, device=mask_BK.device).tril(keys - queries)
    # Padding in front sees itself, so that no row is empty.
    own_QK = causal_QK & causal_QK.triu(keys - queries)
    return ((mask_BK[:, None, :] > 0) & causal_QK | own_QK)[:, None]


def _added(allowed: Tensor, like: Tensor) -> Tensor:
    """The layers add their masks to scores."""
    blocked = torch.full((), torch.finfo(like.dtype).min, dtype=like.dtype, device=allowed.device)
    return torch.where(allowed, torch.zeros_like(blocked), blocked)

"""Kosmos-2's language model (arXiv:2306.14824), a Magneto decoder (arXiv:2210.06423), through
transformers' `Kosmos2TextForCausalLM`.

It has norms inside its attention and feed-forward layers, scaled embeddings and fixed waves for
positions. Features take their places before the scaling, as words do. transformers' own forward pass
makes its mask itself and knows none for packed rows, so the layers are run here.

Shape legend: B rows, T tokens, K cached and new tokens, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sensorium.backbones.causal_lm import CausalLM, CausalLMConfig
from sensorium.nn.pretrained import from_config


class Kosmos2TextLMConfig(CausalLMConfig):
    """`arch` is the `text_config` of a Kosmos-2's config.json."""

    kind: Literal["kosmos2_text"] = "kosmos2_text"  # pyright: ignore[reportIncompatibleVariableOverride]

    @classmethod
    def tiny(cls) -> Kosmos2TextLMConfig:
        return cls(
            tokenizer="bytes",
            arch={
                "model_type": "kosmos_2_text_model",
                "vocab_size": 512,
                "embed_dim": 48,
                "ffn_dim": 96,
                "layers": 2,
                "attention_heads": 4,
                "max_position_embeddings": 512,
                "dropout": 0.0,
                "attention_dropout": 0.0,
            },
        )

    def build(self, folder: Path | None = None) -> Kosmos2Text:
        return Kosmos2Text(self, folder)


class Kosmos2Text(CausalLM):
    """The interface of `CausalLM`."""

    def _language_model(self, hf_config: Any, folder: Path | None) -> Any:
        from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2TextForCausalLM

        return from_config(Kosmos2TextForCausalLM, hf_config, folder)

    @property
    def decoder(self) -> nn.Module:
        return self.lm.model

    def _decode(self, embeds_BTD: Tensor, positions_BT: Tensor, mask: Any, cache: Any) -> Tensor:
        decoder: Any = self.decoder
        # The rows of the table up to the padding's are no positions.
        first = decoder.embed_positions.padding_idx + 1
        hidden_BTD = decoder.forward_embedding(
            None, inputs_embeds=embeds_BTD, position_ids=positions_BT + first
        )
        cached = cache.get_seq_length() if cache is not None else 0
        allowed = _allowed(mask, embeds_BTD, cached)
        if allowed is not None:
            allowed = self._native(allowed) if allowed.dtype == torch.bool else allowed
        for layer in decoder.layers:
            hidden_BTD = layer(hidden_BTD, allowed, past_key_values=cache)
        return decoder.layer_norm(hidden_BTD)


def _allowed(mask: Tensor | None, embeds_BTD: Tensor, cached: int) -> Tensor | None:
    """(B or 1, 1, T, K), True where attention is allowed; None: as far as the kernel's own causal
    mask reaches.

    Args:
        mask: (B, K) with 0 for padding, a finished mask of packed rows, or None.
    """
    length = embeds_BTD.shape[1]
    if mask is not None and mask.ndim == 4:
        return mask
    if mask is None and (length == 1 or not cached):
        return None
    every_TK = torch.ones(length, cached + length, dtype=torch.bool, device=embeds_BTD.device)
    causal_11TK = every_TK.tril(cached)[None, None]
    if mask is None:
        return causal_11TK
    # Padding sees itself: a softmax over no keys is not a number.
    itself_11TK = causal_11TK & every_TK.triu(cached)
    return (causal_11TK & mask.bool()[:, None, None]) | itself_11TK

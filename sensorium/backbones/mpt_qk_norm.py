"""MPT whose queries and keys are normed, as MPT-1B-RedPajama has them; transformers' MPT does not.

Source: config.json of huggingface.co/mosaicml/mpt-1b-redpajama-200b (`attn_qk_ln`) and the attention
of github.com/mosaicml/llm-foundry: layer norms without biases over the whole width, before it is cut
into heads. Its own files are read by way of `interop/mosaic_gpt.py`.

Shape legend: B rows, T tokens, D width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sensorium.backbones.causal_lm import CausalLM, CausalLMConfig, transformers_config
from sensorium.nn.pretrained import load_part


class MptQkNormConfig(CausalLMConfig):
    """`arch` is an MPT's config as transformers writes it."""

    kind: Literal["mpt_qk_norm"] = "mpt_qk_norm"  # pyright: ignore[reportIncompatibleVariableOverride]

    @classmethod
    def tiny(cls) -> MptQkNormConfig:
        return cls(
            tokenizer="bytes",
            arch={"model_type": "mpt", "vocab_size": 512, "d_model": 48, "n_layers": 2, "n_heads": 4,
                  "max_seq_len": 512},
        )  # fmt: skip

    def build(self, folder: Path | None = None) -> MptQkNorm:
        return MptQkNorm(self, folder)


class MptQkNorm(CausalLM):
    """The interface of `CausalLM`; the norms have the original's names, `attn.q_ln` and `attn.k_ln`."""

    def _language_model(self, hf_config: Any, folder: Path | None) -> Any:
        from transformers import AutoModelForCausalLM

        stored = self.config.arch
        if folder is not None and self.config.added_tokens:
            # Its makers' table has other rows than there are tokens.
            rows = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
            stored = stored | {"vocab_size": rows}
        lm: Any = AutoModelForCausalLM.from_config(transformers_config(stored))
        for block in lm.transformer.blocks:
            add_norms(block.attn, hf_config.d_model, hf_config.layer_norm_epsilon)
        if folder is not None:
            load_part(lm, folder, "")
            if self.config.added_tokens:
                lm.resize_token_embeddings(self.config.vocab_size, mean_resizing=False)
        return lm


def add_norms(attention: Any, width: int, eps: float) -> None:
    """Norm the queries and keys of an MPT's attention, where its fused projection gives them."""
    attention.q_ln = nn.LayerNorm(width, eps=eps, bias=False)
    attention.k_ln = nn.LayerNorm(width, eps=eps, bias=False)

    def normed(module: nn.Module, args: tuple[Any, ...], fused_BTD: Tensor) -> Tensor:
        q_BTD, k_BTD, v_BTD = fused_BTD.chunk(3, dim=-1)
        return torch.cat([attention.q_ln(q_BTD), attention.k_ln(k_BTD), v_BTD], dim=-1)

    attention.Wqkv.register_forward_hook(normed)

"""Emu3's language model (arXiv:2409.18869) through transformers' `Emu3ForCausalLM`, which its Auto classes do not run: a Llama
whose vocabulary has a word for each code of a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from sensorium.backbones.causal_lm import CausalLM, CausalLMConfig
from sensorium.nn.pretrained import from_config


class Emu3TextConfig(CausalLMConfig):
    """`arch` is the `text_config` of an Emu3's config.json."""

    kind: Literal["emu3_text"] = "emu3_text"  # pyright: ignore[reportIncompatibleVariableOverride]

    @classmethod
    def tiny(cls) -> Emu3TextConfig:
        sizes = CausalLMConfig.tiny().arch
        ids = {"bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0}
        return cls(tokenizer="bytes", arch={**sizes, **ids, "model_type": "emu3_text_model", "attention_dropout": 0.0,
                                            "tie_word_embeddings": False})  # fmt: skip

    def build(self, folder: Path | None = None) -> Emu3Text:
        return Emu3Text(self, folder)


class Emu3Text(CausalLM):
    """The interface of `CausalLM`."""

    def _language_model(self, hf_config: Any, folder: Path | None) -> Any:
        from transformers.models.emu3.modeling_emu3 import Emu3ForCausalLM

        return from_config(Emu3ForCausalLM, hf_config, folder)

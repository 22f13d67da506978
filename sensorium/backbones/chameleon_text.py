"""Chameleon's language model (arXiv:2405.09818) through transformers' class without its VQ model: a Llama that norms queries and
keys head by head, whose vocabulary has a word for each code of a picture. The class hides their scores; here they are seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from sensorium.backbones.causal_lm import CausalLM, CausalLMConfig
from sensorium.nn.pretrained import from_config

# The class makes a VQ model, which is thrown away at once.
SMALL_VQ = {"base_channels": 32, "channel_multiplier": [1], "num_res_blocks": 1, "resolution": 8, "num_embeddings": 4,
            "embed_dim": 4, "latent_channels": 4}  # fmt: skip


class ChameleonTextConfig(CausalLMConfig):
    """`arch` is a Chameleon's config.json without `vq_config` and `vocabulary_map`."""

    kind: Literal["chameleon_text"] = "chameleon_text"  # pyright: ignore[reportIncompatibleVariableOverride]

    @classmethod
    def tiny(cls) -> ChameleonTextConfig:
        ids = {"bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0}
        return cls(tokenizer="bytes", arch={**CausalLMConfig.tiny().arch, **ids, "model_type": "chameleon",
                                            "tie_word_embeddings": False})  # fmt: skip

    def build(self, folder: Path | None = None) -> ChameleonText:
        return ChameleonText(self, folder)


class ChameleonText(CausalLM):
    """The interface of `CausalLM`."""

    def _language_model(self, hf_config: Any, folder: Path | None) -> Any:
        from transformers import ChameleonForConditionalGeneration, ChameleonVQVAEConfig

        class WordsAlone(ChameleonForConditionalGeneration):
            def __init__(self, config: Any) -> None:
                super().__init__(config)
                self.model.vqmodel = None  # pyright: ignore[reportAttributeAccessIssue]

        hf_config.vq_config = ChameleonVQVAEConfig(**SMALL_VQ)
        hf_config.vocabulary_map = {}
        return from_config(WordsAlone, hf_config, folder, beside=("vqmodel",))

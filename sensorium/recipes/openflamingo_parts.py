"""The graph of OpenFlamingo (arXiv:2308.01390): CLIP's patches before its last norm, Flamingo's
resampler and blocks of cross-attention, a frozen language model.

Sources: open_flamingo/src/ and train/ of github.com/mlfoundations/open_flamingo; config.json of each
language model. Later releases of open_clip norm the patches; those that the models were trained with
do not.
"""

from __future__ import annotations

from typing import Any

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.mpt_qk_norm import MptQkNormConfig
from sensorium.core.weights import HubSource
from sensorium.fusion.gated_cross_attention import GatedCrossAttentionConfig
from sensorium.input_projectors.perceiver import PerceiverConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.recipes.published_parts import clip_l

CHUNK_END, IMAGE, PAD = "<|endofchunk|>", "<image>", "<PAD>"
NEW_ROWS = (-3, -2)
"""The embeddings that learn: all but the padding's."""
# The words of GPT-NeoX-20B's tokenizer (as many as issue 6 of github.com/Zyphra/BlackMamba counts), which all
# of the language models have, and three new ones. The embedding is cut to as many rows.
VOCABULARY = 50_277 + 3
TOKENS: dict[str, Any] = {"added_tokens": (CHUNK_END, IMAGE, PAD)}


def mpt_1b() -> MptQkNormConfig:
    """MPT-1B-RedPajama-200b, with normed queries and keys, from its makers' own layout."""
    source = HubSource(id="anas-awadalla/mpt-1b-redpajama-200b", format="mosaic_gpt")
    return MptQkNormConfig(arch=_mpt(d_model=2048, n_heads=16, n_layers=24), weights=(source,), **TOKENS)


def mpt_7b() -> CausalLMConfig:
    """MPT-7B."""
    return CausalLMConfig(arch=_mpt(d_model=4096, n_heads=32, n_layers=32),
                          weights=(HubSource(id="anas-awadalla/mpt-7b"),), **TOKENS)  # fmt: skip


def redpajama_3b() -> CausalLMConfig:
    """RedPajama-INCITE-Base-3B, a GPT-NeoX."""
    return CausalLMConfig(
        arch={
            "model_type": "gpt_neox",
            "vocab_size": VOCABULARY,
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 2048,
            "rotary_pct": 1.0,
            "use_parallel_residual": False,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        weights=(HubSource(id="togethercomputer/RedPajama-INCITE-Base-3B-v1"),),
        **TOKENS,
    )


def openflamingo_model(backbone: CausalLMConfig, *, every: int) -> ModelConfig:
    """A block in front of the last of every `every` layers."""
    return ModelConfig(
        lanes={
            "image": LaneConfig(
                encoder=clip_l(224).model_copy(update={"select_layer": None}),
                projector=PerceiverConfig(project=False),
                resolution=FixedResolution(fit="crop"),
            )
        },
        backbone=backbone,
        fusion=GatedCrossAttentionConfig(every=every, first=every - 1),
        image_markers=(IMAGE,),
        template="openflamingo",
    )


def _mpt(**sizes: int) -> dict[str, Any]:
    return {"model_type": "mpt", "vocab_size": VOCABULARY, "max_seq_len": 2048, **sizes}

"""LLM backbones: token embeddings -> hidden states -> logits."""

from sensorium.core.tables import NameTable

BACKBONES = NameTable(
    "backbone",
    {
        "causal_lm": "sensorium.backbones.causal_lm:CausalLMConfig",
        "kosmos2_text": "sensorium.backbones.kosmos2_text:Kosmos2TextLMConfig",
        "mpt_qk_norm": "sensorium.backbones.mpt_qk_norm:MptQkNormConfig",
        "seq2seq_lm": "sensorium.backbones.seq2seq_lm:Seq2SeqLMConfig",
    },
)

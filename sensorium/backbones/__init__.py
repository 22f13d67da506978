"""LLM backbones: token embeddings -> hidden states -> logits."""

from sensorium.core.tables import NameTable

BACKBONES = NameTable(
    "backbone",
    {
        "causal_lm": "sensorium.backbones.causal_lm:CausalLMConfig",
        "seq2seq_lm": "sensorium.backbones.seq2seq_lm:Seq2SeqLMConfig",
    },
)

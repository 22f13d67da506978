"""LLM backbones: token embeddings -> hidden states -> logits."""

from sensorium.core.tables import NameTable

BACKBONES = NameTable(
    "backbone",
    {
        "causal_lm": "sensorium.backbones.causal_lm:CausalLMConfig",
        "kosmos2_text": "sensorium.backbones.kosmos2_text:Kosmos2TextLMConfig",
        "chameleon_text": "sensorium.backbones.chameleon_text:ChameleonTextConfig",
        "emu3_text": "sensorium.backbones.emu3_text:Emu3TextConfig",
        "mpt_qk_norm": "sensorium.backbones.mpt_qk_norm:MptQkNormConfig",
        "seq2seq_lm": "sensorium.backbones.seq2seq_lm:Seq2SeqLMConfig",
        "cross_lm": "sensorium.backbones.cross_lm:CrossLMConfig",
        "cross_tower": "sensorium.backbones.cross_tower:CrossTowerConfig",
        "cross_med": "sensorium.backbones.cross_med:CrossMedConfig",
        "cross_seq2seq": "sensorium.backbones.cross_seq2seq:CrossSeq2SeqConfig",
        "query_tower": "sensorium.backbones.query_tower:QueryTowerConfig",
        "text_tower": "sensorium.backbones.text_tower:TextTowerConfig",
    },
)

"""BLIP's mixture of encoder and decoder, as it is pretrained: a BERT that reads texts alone or over a picture,
and one that writes over it. All is shared between them but self-attention.

Source: BLIP (arXiv:2201.12086), section 3.1; github.com/salesforce/BLIP, models/blip_pretrain.py.

Shape legend: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from sensorium.backbones.causal_lm import transformers_config
from sensorium.backbones.cross_lm import CrossLMConfig
from sensorium.backbones.cross_seq2seq import CrossSeq2SeqConfig
from sensorium.backbones.cross_tower import CrossTower, CrossTowerConfig
from sensorium.core.batch import Batch
from sensorium.core.parts import BackboneConfig
from sensorium.nn.attention import segment_mask
from sensorium.nn.bert_layers import embedded, run_layers
from sensorium.nn.cross_media import CrossMedia
from sensorium.nn.pretrained import load_part


class CrossMedConfig(CrossTowerConfig):
    """The tower of `cross_tower`, and a decoder of the same sizes."""

    kind: Literal["cross_med"] = "cross_med"

    def lends(self, other: BackboneConfig) -> dict[str, str]:
        if isinstance(other, CrossLMConfig):
            return {"lm.text_decoder.": "lm."}
        encoder = {"lm.text_encoder.": "lm.text_encoder."}
        if isinstance(other, CrossSeq2SeqConfig):
            return encoder | {"lm.text_decoder.": "lm.text_decoder."}
        if type(other) is CrossTowerConfig:
            return encoder | {f"lm.{head}.": f"lm.{head}." for head in ("text_proj", "itm_head")}
        return super().lends(other)

    def build(self, folder: Path | None = None) -> CrossMed:
        return CrossMed(self, folder)


class CrossMed(CrossTower):
    """Reads as a CrossTower does; writes over media."""

    def __init__(self, config: CrossMedConfig, folder: Path | None = None) -> None:
        from transformers import BlipTextLMHeadModel

        super().__init__(config, folder)
        decoder: Any = BlipTextLMHeadModel(transformers_config(config.arch))
        if folder is not None:
            load_part(decoder, folder, "text_decoder.")
        self.lm.text_decoder = decoder
        share(self.lm.text_encoder, decoder)

    @property
    def begin_id(self) -> int:
        """The token that begins a text to be written, [DEC]."""
        return int(self.lm.config.bos_token_id)

    def written(self, embeds_BTD: Tensor, batch: Batch, media: CrossMedia) -> Tensor:
        """Scores of each next word, (B, T, V), by words that see those before them and the media."""
        decoder = self.lm.text_decoder.bert
        hidden_BTD = embedded(decoder.embeddings, embeds_BTD, batch.positions_BT)
        mask_B1TT = segment_mask(batch.segments_BT, batch.branches_BT)
        hidden_BTD = run_layers(decoder.encoder.layer, hidden_BTD, mask_B1TT, media)
        return self.lm.text_decoder.cls(hidden_BTD)


def share(encoder: Any, decoder: Any) -> None:
    """Have a decoder use an encoder's own modules, but for self-attention and its norm."""
    decoder.bert.embeddings = encoder.embeddings
    decoder.cls.predictions.decoder.weight = encoder.embeddings.word_embeddings.weight
    for reads, writes in zip(encoder.encoder.layer, decoder.bert.encoder.layer, strict=True):
        writes.crossattention = reads.crossattention
        writes.intermediate, writes.output = reads.intermediate, reads.output

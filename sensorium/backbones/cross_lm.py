"""BLIP's text decoder: a BERT that writes, with cross-attention to a picture in every layer.

Source: BLIP (arXiv:2201.12086), through transformers' `BlipTextLMHeadModel`.

Shape legend: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from sensorium.backbones.causal_lm import transformers_config
from sensorium.backbones.inserting import Inserted
from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError
from sensorium.core.parts import BackboneConfig
from sensorium.nn.attention import segment_mask
from sensorium.nn.bert_layers import cached_mask, embedded, run_layers
from sensorium.nn.cross_media import CrossMedia
from sensorium.nn.pretrained import load_part


class BlipTextBackbone(BackboneConfig):
    """`arch` is BLIP's text config as transformers writes it."""

    arch: dict[str, Any]

    @classmethod
    def tiny(cls) -> BlipTextBackbone:
        return cls(kind=str(cls.model_fields["kind"].default), arch=TINY, tokenizer="bytes")

    @property
    def d_model(self) -> int:
        return int(transformers_config(self.arch).hidden_size)

    @property
    def d_media(self) -> int:
        return int(transformers_config(self.arch).encoder_hidden_size)

    @property
    def vocab_size(self) -> int:
        return int(transformers_config(self.arch).vocab_size)

    @property
    def num_layers(self) -> int:
        return int(transformers_config(self.arch).num_hidden_layers)

    @property
    def max_positions(self) -> int:
        return int(transformers_config(self.arch).max_position_embeddings)


TINY = {
    "model_type": "blip_text_model", "vocab_size": 512, "hidden_size": 48, "encoder_hidden_size": 32,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 0, "sep_token_id": 0,
    "pad_token_id": 0,
}  # fmt: skip


class CrossLMConfig(BlipTextBackbone):
    """A decoder alone: captions."""

    kind: Literal["cross_lm"] = "cross_lm"

    def build(self, folder: Path | None = None) -> CrossLM:
        return CrossLM(self, folder)


class CrossLM(nn.Module):
    """embed -> layers over text and media -> logits."""

    def __init__(self, config: CrossLMConfig, folder: Path | None = None) -> None:
        super().__init__()
        from transformers import BlipTextLMHeadModel

        self.config = config
        self.lm: Any = BlipTextLMHeadModel(transformers_config(config.arch))
        if folder is not None:
            load_part(self.lm, folder, "text_decoder.")

    @property
    def embedding(self) -> nn.Embedding:
        return self.lm.get_input_embeddings()

    def trainable_blocks(self) -> list[nn.Module]:
        """Layers from input to output, for training only the last few."""
        return list(self.lm.bert.encoder.layer)

    def add_prompts(self, layers: int, length: int, gate: str) -> None:
        """BERT has no place for adaption prompts.

        Raises:
            ConfigError: always.
        """
        raise no_prompts(layers, length)

    def embed(self, ids_BT: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        return self.embedding(ids_BT)

    def new_cache(self) -> Any:
        """An empty cache for one batch of answers."""
        from transformers import DynamicCache, EncoderDecoderCache

        return EncoderDecoderCache(DynamicCache(), DynamicCache())

    def teacher_forced(
        self, embeds_BTD: Tensor, batch: Batch, insert: Inserted | CrossMedia = None
    ) -> Tensor:
        """Hidden states of whole rows, answers included, (B, T, D)."""
        hidden_BTD = embedded(self.lm.bert.embeddings, embeds_BTD, batch.positions_BT)
        mask_B1TT = segment_mask(batch.segments_BT, batch.branches_BT)
        return run_layers(self.trainable_blocks(), hidden_BTD, mask_B1TT, only_media(insert))

    def forward(
        self,
        embeds_BTD: Tensor,
        *,
        positions_BT: Tensor,
        places_3BT: Tensor | None = None,
        mask_BT: Tensor | None = None,
        cache: Any = None,
        insert: Inserted | CrossMedia = None,
    ) -> Tensor:
        """Last hidden states of growing answers.

        Args:
            mask_BT: given where rows are padded on the left: 1 for real tokens, covering cached
                positions too.
        """
        del places_3BT
        hidden_BTD = embedded(self.lm.bert.embeddings, embeds_BTD, positions_BT)
        mask_B1QK = grown_mask(embeds_BTD, mask_BT, cache)
        return run_layers(self.trainable_blocks(), hidden_BTD, mask_B1QK, only_media(insert), cache)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return self.lm.cls(hidden)


def grown_mask(embeds_BTD: Tensor, mask_BT: Tensor | None, cache: Any) -> Tensor:
    """Attention of new tokens to themselves and to all cached ones, (B, 1, Q, K)."""
    queries = embeds_BTD.shape[1]
    if mask_BT is None:
        keys = queries + (cache.get_seq_length() if cache is not None else 0)
        mask_BT = embeds_BTD.new_ones(len(embeds_BTD), keys)
    return cached_mask(mask_BT, queries)


def only_media(insert: Inserted | CrossMedia) -> CrossMedia | None:
    """What the layers' own cross-attention reads.

    Raises:
        ConfigError: it is for another kind of language model.
    """
    if insert is None or isinstance(insert, CrossMedia):
        return insert
    raise ConfigError(
        "layers or prompts inserted into a language model with cross-attention of its own",
        fix="use fusion: cross_attention with this backbone",
    )


def no_prompts(layers: int, length: int) -> ConfigError:
    """The error for a model that should get adaption prompts."""
    return ConfigError(
        f"{length} adaption prompts in {layers} layers of a BERT",
        expected="a language model of the Llama kind",
        where="model.adapter",
        fix="use adapter: {kind: lora}, with targets query and value",
    )

"""Chameleon in transformers' layout (`ChameleonForConditionalGeneration`); that of checkpoints made for drawing (Anole,
arXiv:2407.06135) has the decoder's tensors beside."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sensorium.backbones.chameleon_text import ChameleonTextConfig
from sensorium.generators.chameleon_vq import ChameleonVqConfig
from sensorium.generators.image_words import chameleon_words
from sensorium.interop.families.base import lm_arch, refuse_export, text_arch
from sensorium.interop.families.picture_words import code_names, word_ranges
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.model.config import ModelConfig
from sensorium.model.picture_layouts import CHAMELEON
from sensorium.model.picture_words import PictureWordsConfig

APART = ("vq_config", "vocabulary_map", "image_token_id")
LETTERS = str.maketrans("0123456789", "ABCDEFGHIJ")


class Chameleon:
    """A Llama with normed queries and keys that reads and writes pictures as words."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        arch = {key: value for key, value in text_arch(config).items() if key not in APART}
        return ModelConfig(
            backbone=ChameleonTextConfig(arch=arch),
            picture_words=PictureWordsConfig(
                tokenizer=ChameleonVqConfig.published(config, {}).model_copy(update={"decoder": False}),
                words=word_ranges(config, chameleon_words),
                **CHAMELEON,
            ),
            template="chameleon",
        )

    def with_tensors(self, config: ModelConfig, names: Collection[str]) -> ModelConfig:
        """Whether there is a decoder, config.json does not say."""
        told = config.picture_words
        assert told is not None, "a Chameleon without picture words"
        there = any(name.startswith("model.vqmodel.decoder.") for name in names)
        tokenizer = told.tokenizer.model_copy(update={"decoder": there})
        return config.model_copy(update={"picture_words": told.model_copy(update={"tokenizer": tokenizer})})

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        told = config.picture_words
        if told is None or config.lanes or config.hands or not isinstance(told.tokenizer, ChameleonVqConfig):
            raise refuse_export("chameleon", "it needs picture words by Chameleon's tokenizer, and no lanes or hands")
        if not isinstance(config.backbone, ChameleonTextConfig):
            raise refuse_export("chameleon", "the backbone is not Chameleon's")
        if not told.shared:
            raise refuse_export("chameleon", "codes have no words of the vocabulary")
        vq = told.tokenizer
        return {
            **lm_arch("chameleon", config),
            "architectures": ["ChameleonForConditionalGeneration"],
            "model_type": "chameleon",
            "vq_config": {**vq.hf_sizes(), "num_embeddings": vq.codes, "resolution": vq.size_px,
                          "attn_resolutions": list(vq.attention_px) or None},
            "vocabulary_map": code_names(config, lambda code: f"IMGIMG{str(code).translate(LETTERS)}Z"),
        }  # fmt: skip

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        return KeyMap(
            rules=(
                Rule("model.vqmodel.*", "picture_tokenizer.model.*"),
                Rule("model.*", "backbone.lm.model.*"),
                Rule("lm_head.*", "backbone.lm.lm_head.*"),
            )
        )

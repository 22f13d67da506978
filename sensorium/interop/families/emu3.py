"""Emu3 in transformers' layout (`Emu3ForConditionalGeneration`), Emu3-Chat and Emu3-Gen alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.backbones.emu3_text import Emu3TextConfig
from sensorium.generators.emu3_vq import Emu3VqConfig
from sensorium.generators.image_words import emu3_words
from sensorium.interop.families.base import lm_arch, refuse_export, text_arch
from sensorium.interop.families.picture_words import code_names, word_ranges
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.model.config import ModelConfig
from sensorium.model.picture_layouts import EMU3
from sensorium.model.picture_words import PictureWordsConfig

TEXT_TYPE = "emu3_text_model"


class Emu3:
    """A Llama that reads and writes pictures as words."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        arch: dict[str, Any] = {"model_type": TEXT_TYPE} | text_arch(config.get("text_config") or {})
        # What the whole says of tying counts; the part's own word is not asked.
        arch["tie_word_embeddings"] = bool(config.get("tie_word_embeddings", False))
        tokenizer = Emu3VqConfig.published(config, {})
        return ModelConfig(
            backbone=Emu3TextConfig(arch=arch),
            picture_words=PictureWordsConfig(
                tokenizer=tokenizer,
                words=word_ranges(config, emu3_words),
                **EMU3 | {"resolution": EMU3["resolution"].model_copy(update={"patch_px": tokenizer.stride})},
            ),
            template="emu3",
        )

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        told = config.picture_words
        if told is None or config.lanes or config.hands or not isinstance(told.tokenizer, Emu3VqConfig):
            raise refuse_export("emu3", "it needs picture words by Emu3's tokenizer, and no lanes or hands")
        if not isinstance(config.backbone, Emu3TextConfig):
            raise refuse_export("emu3", "the backbone is not Emu3's")
        if not told.shared or told.row_end is None:
            raise refuse_export("emu3", "codes have no words of the vocabulary, or rows no end")
        vq = told.tokenizer
        arch = lm_arch("emu3", config)
        return {
            "architectures": ["Emu3ForConditionalGeneration"],
            "model_type": "emu3",
            "text_config": arch,
            "vq_config": {
                **vq.hf_sizes(), "codebook_size": vq.codes, "temporal_downsample_factor": vq.frames,
                "attn_resolutions": list(vq.attention_levels), "hidden_size": vq.width * vq.multipliers[-1],
            },
            "vocabulary_map": code_names(config, "<|visual token {:06d}|>".format),
            "tie_word_embeddings": arch.get("tie_word_embeddings", False),
        }  # fmt: skip

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        return KeyMap(
            rules=(
                Rule("vqmodel.*", "picture_tokenizer.model.*"),
                Rule("text_model.model.*", "backbone.lm.model.*"),
                Rule("text_model.lm_head.*", "backbone.lm.lm_head.*"),
            ),
            # As the class itself calls them.
            aliases=(("model.vqmodel.", "vqmodel."), ("model.text_model.", "text_model.model."), ("lm_head.", "text_model.lm_head.")),
        )

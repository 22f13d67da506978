"""LLaVA and LLaVA-1.5 in transformers' layout (`LlavaForConditionalGeneration`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.interop.families.base import lm_arch, text_arch
from sensorium.interop.families.llava_parts import exported_lane, key_map, template, tower
from sensorium.interop.key_map import KeyMap
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig


class Llava:
    """CLIP or SigLIP, a two-layer MLP, any causal language model."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        return ModelConfig(
            lanes={
                "image": LaneConfig(
                    encoder=tower(config),
                    projector=MlpConfig(
                        depth=2, activation=config.get("projector_hidden_act", "gelu")
                    ),
                    resolution=FixedResolution(fit="crop"),
                )
            },
            backbone=CausalLMConfig(arch=text_arch(config["text_config"])),
            template=template(config),
        )

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        _, parts = exported_lane("llava", config)
        text = lm_arch("llava", config)
        return {
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": "llava",
            "image_token_index": text.get("pad_token_id") or 0,
            "text_config": text,
            **parts,
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        return key_map()

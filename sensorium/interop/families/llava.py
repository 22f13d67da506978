"""LLaVA and LLaVA-1.5 in transformers' layout (`LlavaForConditionalGeneration`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.input_projectors.mlp import MlpConfig
from sensorium.interop.families.llava_parts import (
    exported_lane,
    key_map,
    language_model,
    template,
    tower,
)
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
            backbone=language_model(config, own_tie=True),
            template=template(config),
        )

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        _, parts = exported_lane("llava", config)
        return {
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": "llava",
            **parts,
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        return key_map()

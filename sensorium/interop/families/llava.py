"""LLaVA and LLaVA-1.5 in transformers' layout (`LlavaForConditionalGeneration`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.interop.families.base import refuse_export
from sensorium.interop.families.llava_parts import assembled, exported_lane, key_map, tower
from sensorium.interop.key_map import KeyMap
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import ModelConfig


class Llava:
    """CLIP or SigLIP, a two-layer MLP, any causal language model."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        return assembled(config, tower(config), FixedResolution(fit="crop"), own_tie=True)

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane, parts = exported_lane("llava", config)
        if not isinstance(lane.resolution, FixedResolution):
            raise refuse_export("llava", "it sees pictures whole, as one square, and these are cut into tiles")
        return {
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": "llava",
            **parts,
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        return key_map()

"""Qwen2.5-VL in transformers' layout (`Qwen2_5_VLForConditionalGeneration`): pictures, no videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.encoders.qwen25_vit import Qwen25VitConfig
from sensorium.input_projectors.patch_merger import PatchMergerConfig
from sensorium.interop.families.base import refuse_export
from sensorium.interop.families.qwen2_vl import (
    exported,
    language_model,
    native_key_map,
    native_model,
    whole_config,
)
from sensorium.interop.key_map import KeyMap
from sensorium.model.config import ModelConfig

# transformers' class defaults, which config.json may leave out.
VISION = {"depth": 32, "hidden_size": 3584, "intermediate_size": 3420, "num_heads": 16,
          "hidden_act": "silu", "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
          "window_size": 112, "fullatt_block_indexes": (7, 15, 23, 31)}  # fmt: skip


class Qwen25Vl:
    """A tower with windows for pictures of any size, a patch merger, a Qwen2.5 with M-RoPE."""

    name = "qwen2_5_vl"

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        vision = VISION | dict(config["vision_config"])
        encoder = Qwen25VitConfig(
            width=vision["hidden_size"],
            layers=vision["depth"],
            heads=vision["num_heads"],
            mlp_width=vision["intermediate_size"],
            activation=vision["hidden_act"],
            patch_size_px=vision["patch_size"],
            frames=vision["temporal_patch_size"],
            window_px=vision["window_size"],
            whole_layers=tuple(vision["fullatt_block_indexes"]),
        )
        projector = PatchMergerConfig(factor=vision["spatial_merge_size"], norm="rms")
        return native_model(encoder, projector, language_model(config, f"{self.name}_text"))

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane, text = exported(self.name, config, f"{self.name}_text")
        encoder, projector = lane.encoder, lane.projector
        if not isinstance(encoder, Qwen25VitConfig) or encoder.window_px is None:
            raise refuse_export(self.name, "its encoder is not a qwen2_5_vit with windows")
        if not isinstance(projector, PatchMergerConfig) or projector.norm != "rms":
            raise refuse_export(self.name, "its projector is not a patch_merger with norm rms")
        vision = {
            "model_type": "qwen2_5_vl_vision",
            "hidden_size": encoder.width,
            "depth": encoder.layers,
            "num_heads": encoder.heads,
            "intermediate_size": encoder.mlp_width,
            "hidden_act": encoder.activation,
            "patch_size": encoder.patch_size_px,
            "spatial_merge_size": projector.factor,
            "temporal_patch_size": encoder.frames,
            "window_size": encoder.window_px,
            "fullatt_block_indexes": list(encoder.whole_layers),
            "out_hidden_size": config.backbone.d_model,
        }
        return whole_config("Qwen2_5_VLForConditionalGeneration", self.name, vision, text)

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        del config
        return native_key_map()

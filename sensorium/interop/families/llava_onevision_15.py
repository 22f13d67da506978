"""LLaVA-OneVision-1.5 in the layout of its own repository (`ds/llavaonevision1_5`), which
transformers does not have: pictures, no videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.core.errors import ConfigError
from sensorium.encoders.rice_vit import RiceVitConfig
from sensorium.input_projectors.patch_merger import PatchMergerConfig
from sensorium.interop.families.base import refuse_export
from sensorium.interop.families.qwen2_vl import (
    exported,
    language_model,
    native_key_map,
    native_model,
    whole_config,
)
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.model.config import ModelConfig

TEXT = "LLaVAOneVision1_5_text"
"""A Qwen3 by another name."""
EPS = 1e-5
"""Of the norms in its layers, whatever config.json says."""
# The original's class defaults, which config.json may leave out.
VISION = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
          "hidden_act": "gelu", "patch_size": 14, "spatial_merge_size": 2, "layer_norm_eps": EPS}  # fmt: skip


class LlavaOnevision15:
    """RICE-ViT for pictures of any size, a patch merger, a Qwen3."""

    name = "llavaonevision1_5"

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        vision = VISION | dict(config["vision_config"])
        if vision["layer_norm_eps"] != EPS:
            raise ConfigError(f"layer_norm_eps {vision['layer_norm_eps']}", expected=f"{EPS}")
        encoder = RiceVitConfig(
            width=vision["hidden_size"],
            layers=vision["depth"],
            heads=vision["num_heads"],
            mlp_width=vision["intermediate_size"],
            activation=vision["hidden_act"],
            patch_size_px=vision["patch_size"],
        )
        projector = PatchMergerConfig(factor=vision["spatial_merge_size"], norm_eps=EPS)
        return native_model(encoder, projector, language_model(config, "qwen3"))

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane, text = exported(self.name, config, "qwen3")
        encoder, projector = lane.encoder, lane.projector
        if not isinstance(encoder, RiceVitConfig) or encoder.norm_eps != EPS:
            raise refuse_export(self.name, f"its encoder is not a rice_vit with norm_eps {EPS}")
        if projector != PatchMergerConfig(factor=getattr(projector, "factor", 2), norm_eps=EPS):
            raise refuse_export(self.name, f"its projector is not a patch_merger with norm_eps {EPS}")
        vision = {
            "model_type": "rice_vit",
            "embed_dim": encoder.width,
            "hidden_size": encoder.width,
            "depth": encoder.layers,
            "num_heads": encoder.heads,
            "intermediate_size": encoder.mlp_width,
            "hidden_act": encoder.activation,
            "patch_size": encoder.patch_size_px,
            "spatial_merge_size": lane.resolution.to_dict()["merge"],
            "layer_norm_eps": EPS,
            "text_hidden_size": config.backbone.d_model,
        }
        whole = whole_config("LLaVAOneVision1_5_ForConditionalGeneration", self.name, vision, text)
        return whole | {"text_config": text | {"model_type": TEXT}}

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        del config
        return native_key_map(
            Rule("visual.class_embedding", "encoders.image.class_embedding"),
            Rule("visual.class_pos_emb", "encoders.image.class_pos_emb"),
            Rule("visual.pre_layernorm.*", "encoders.image.pre_layernorm.*"),
        )

"""LLaVA and LLaVA-1.5 in transformers' layout (`LlavaForConditionalGeneration`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import ConfigError
from sensorium.encoders.clip import ClipConfig
from sensorium.encoders.siglip import SiglipConfig
from sensorium.encoders.tower import TowerConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.interop.families.base import lm_arch, refuse_export, text_arch
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig

TOWERS: dict[str, type[TowerConfig]] = {
    "clip_vision_model": ClipConfig,
    "siglip_vision_model": SiglipConfig,
}
# transformers' class defaults, which config.json may leave out.
CLIP_DEFAULTS = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu",
}  # fmt: skip
SIGLIP_DEFAULTS = CLIP_DEFAULTS | {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh"}
FEATURES = {"default": "patch", "full": "cls_patch"}


class Llava:
    """CLIP or SigLIP, a two-layer MLP, any causal language model."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        vision = config["vision_config"]
        kind = vision.get("model_type", "clip_vision_model")
        if kind not in TOWERS:
            raise ConfigError(f"LLaVA with a {kind} tower", expected=", ".join(TOWERS))
        shape = (CLIP_DEFAULTS if kind.startswith("clip") else SIGLIP_DEFAULTS) | dict(vision)
        layer = config.get("vision_feature_layer", -2)
        if not isinstance(layer, int):
            raise ConfigError(f"vision_feature_layer {layer!r}", expected="one layer")
        values: dict[str, Any] = {
            "width": shape["hidden_size"],
            "layers": shape["num_hidden_layers"],
            "heads": shape["num_attention_heads"],
            "mlp_width": shape["intermediate_size"],
            "image_size_px": shape["image_size"],
            "patch_size_px": shape["patch_size"],
            "select_layer": layer,
            "feature": FEATURES[config.get("vision_feature_select_strategy", "default")],
        }
        if kind.startswith("clip"):
            values["activation"] = shape["hidden_act"]
        if kind.startswith("siglip") and values["feature"] == "patch":
            raise ConfigError("LLaVA's 'default' features drop a CLS token that SigLIP lacks",
                              expected="vision_feature_select_strategy 'full'")  # fmt: skip
        if kind.startswith("siglip"):
            values["feature"] = "patch"
        return ModelConfig(
            lanes={
                "image": LaneConfig(
                    encoder=TOWERS[kind](**values),
                    projector=MlpConfig(depth=2, activation=config.get("projector_hidden_act", "gelu")),
                    resolution=FixedResolution(fit="crop"),
                )
            },
            backbone=CausalLMConfig(arch=text_arch(config["text_config"])),
            template="vicuna" if config["text_config"].get("model_type") == "llama" else "auto",
        )

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane = config.lanes.get("image")
        if lane is None or set(config.lanes) != {"image"} or not config.fusion.fills_slots:
            raise refuse_export("llava", "it needs one image lane and splice fusion")
        tower, projector = lane.encoder, lane.projector
        if not isinstance(tower, ClipConfig) or tower.select_layer is None:
            raise refuse_export("llava", "the encoder is not CLIP with a chosen layer")
        if not isinstance(projector, MlpConfig) or projector.depth != 2 or projector.norm_in:
            raise refuse_export("llava", "the projector is not a plain two-layer MLP")
        strategy = {v: k for k, v in FEATURES.items()}.get(tower.feature)
        if strategy is None:
            raise refuse_export("llava", f"it has no feature {tower.feature!r}")
        placeholder = lm_arch("llava", config).get("pad_token_id") or 0
        return {
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": "llava",
            "image_token_index": placeholder,
            "image_seq_length": tower.grid().tokens,
            "projector_hidden_act": projector.activation,
            "multimodal_projector_bias": True,
            "vision_feature_layer": tower.select_layer,
            "vision_feature_select_strategy": strategy,
            "text_config": lm_arch("llava", config),
            "vision_config": {
                "model_type": "clip_vision_model",
                "hidden_size": tower.width,
                "num_hidden_layers": tower.layers,
                "num_attention_heads": tower.heads,
                "intermediate_size": tower.mlp_width,
                "image_size": tower.image_size_px,
                "patch_size": tower.patch_size_px,
                "hidden_act": tower.activation,
            },
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        return KeyMap(
            rules=(
                Rule("vision_tower.*", "encoders.image.tower.*"),
                Rule("multi_modal_projector.linear_1.*", "projectors.image.layers.0.*"),
                Rule("multi_modal_projector.linear_2.*", "projectors.image.layers.2.*"),
                Rule("language_model.*", "backbone.lm.*"),
            ),
            aliases=(
                ("vision_tower.vision_model.", "vision_tower."),
                ("model.vision_tower.vision_model.", "vision_tower."),
                ("model.vision_tower.", "vision_tower."),
                ("model.multi_modal_projector.", "multi_modal_projector."),
                ("model.language_model.", "language_model.model."),
                ("lm_head.", "language_model.lm_head."),
            ),
        )

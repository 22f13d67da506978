"""Kosmos-2 in transformers' layout (`Kosmos2ForConditionalGeneration`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.backbones.kosmos2_text import Kosmos2TextLMConfig
from sensorium.encoders.clip import ClipConfig
from sensorium.input_projectors.latent_query import LatentQueryConfig
from sensorium.interop.families.base import lm_arch, refuse_export, text_arch
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig

# transformers' class defaults, which config.json may leave out.
VISION_DEFAULTS = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 224, "patch_size": 14, "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}  # fmt: skip
TEXT_TYPE = "kosmos_2_text_model"
HEADS = 32


class Kosmos2:
    """CLIP normed to unit length, latent queries, Magneto decoder."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        vision = VISION_DEFAULTS | dict(config.get("vision_config") or {})
        arch: dict[str, Any] = {"model_type": TEXT_TYPE} | text_arch(config.get("text_config") or {})
        return ModelConfig(
            lanes={
                "image": LaneConfig(
                    encoder=ClipConfig(
                        width=vision["hidden_size"],
                        layers=vision["num_hidden_layers"],
                        heads=vision["num_attention_heads"],
                        mlp_width=vision["intermediate_size"],
                        image_size_px=vision["image_size"],
                        patch_size_px=vision["patch_size"],
                        activation=vision["hidden_act"],
                        norm_eps=vision["layer_norm_eps"],
                        feature="cls_patch",
                        norm_tokens=True,
                        unit_tokens=True,
                    ),
                    projector=LatentQueryConfig(
                        latents=config.get("latent_query_num", 64),
                        heads=arch.get("attention_heads", HEADS),
                    ),
                    resolution=FixedResolution(fit="stretch"),
                )
            },
            backbone=Kosmos2TextLMConfig(arch=arch),
            template="kosmos2",
            boxes="kosmos2",
        )

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane, backbone = config.lanes.get("image"), config.backbone
        if lane is None or set(config.lanes) != {"image"} or not config.fusion.fills_slots:
            raise refuse_export("kosmos-2", "it needs one image lane and splice fusion")
        tower, projector = lane.encoder, lane.projector
        if not isinstance(tower, ClipConfig) or not tower.unit_tokens or tower.feature != "cls_patch":
            raise refuse_export("kosmos-2", "the encoder is not CLIP with all tokens of length 1")
        if not isinstance(backbone, Kosmos2TextLMConfig):
            raise refuse_export("kosmos-2", "the backbone is not Kosmos-2's")
        heads = backbone.arch.get("attention_heads", HEADS)
        if not isinstance(projector, LatentQueryConfig) or projector.heads != heads:
            raise refuse_export("kosmos-2", f"the projector is not latent queries of {heads} heads")
        return {
            "architectures": ["Kosmos2ForConditionalGeneration"],
            "model_type": "kosmos-2",
            "latent_query_num": projector.latents,
            "text_config": lm_arch("kosmos-2", config),
            "vision_config": {
                "hidden_size": tower.width,
                "num_hidden_layers": tower.layers,
                "num_attention_heads": tower.heads,
                "intermediate_size": tower.mlp_width,
                "image_size": tower.image_size_px,
                "patch_size": tower.patch_size_px,
                "hidden_act": tower.activation,
                "layer_norm_eps": tower.norm_eps,
            },
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        theirs, ours = "image_to_text_projection.", "projectors.image."
        attention = "image_to_text_projection.x_attn."
        return KeyMap(
            rules=(
                Rule("vision_model.model.*", "encoders.image.tower.*"),
                Rule(f"{theirs}dense.*", f"{ours}dense.*"),
                Rule(f"{theirs}latent_query", f"{ours}latents_QD"),
                Rule(f"{attention}q_proj.*", f"{ours}attention.q.*"),
                Rule(f"{attention}k_proj.*", f"{ours}attention.k.*"),
                Rule(f"{attention}v_proj.*", f"{ours}attention.v.*"),
                Rule(f"{attention}out_proj.*", f"{ours}attention.out.*"),
                Rule("text_model.*", "backbone.lm.*"),
            )
        )

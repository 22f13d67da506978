"""CLIP and SigLIP in transformers' layout (`CLIPModel`, `SiglipModel`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sensorium.backbones.causal_lm import transformers_config
from sensorium.backbones.text_tower import TextTowerConfig
from sensorium.encoders.clip import ClipConfig
from sensorium.encoders.siglip import SiglipConfig
from sensorium.encoders.tower import TowerConfig
from sensorium.fusion.apart import ApartConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.interop.families.base import refuse_export, text_arch
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig

# Older files store these buffers.
BUFFERS = ("embeddings.position_ids",)


class Clip:
    """A vision transformer and a causal text tower, each with a map into the shared space."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        whole = _resolved("clip", config)
        vision = whole.vision_config
        encoder = ClipConfig(
            **_shape(vision),
            feature="pooled",
            activation=vision.hidden_act,
            norm_eps=vision.layer_norm_eps,
        )
        # The tower's own value is the class's default in many files.
        arch = _text(whole.text_config) | {"projection_dim": whole.projection_dim}
        return ModelConfig(
            lanes={
                "image": LaneConfig(
                    encoder=encoder,
                    projector=LinearConfig(bias=False),
                    resolution=FixedResolution(fit="crop"),
                )
            },
            backbone=TextTowerConfig(arch=arch),
            fusion=ApartConfig(scale=whole.logit_scale_init_value),
            template="pair",
        )

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane, text = _sides("clip", config, "clip_text_model")
        encoder, fusion = lane.encoder, config.fusion
        if not isinstance(encoder, ClipConfig) or encoder.feature != "pooled":
            raise refuse_export("clip", "the encoder is not CLIP with pooled features")
        if not isinstance(lane.projector, LinearConfig) or lane.projector.bias or not lane.projector.project:
            raise refuse_export("clip", "the projector is not one linear map without a bias")
        if not isinstance(fusion, ApartConfig) or fusion.bias is not None:
            raise refuse_export("clip", "its scores have a bias")
        width = config.backbone.d_media
        return {
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "projection_dim": width,
            "logit_scale_init_value": fusion.scale,
            "text_config": text,
            "vision_config": {
                **_hf_shape("clip_vision_model", encoder),
                "projection_dim": width,
                "hidden_act": encoder.activation,
                "layer_norm_eps": encoder.norm_eps,
            },
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        return KeyMap(
            rules=(
                Rule("vision_model.*", "encoders.image.tower.*"),
                Rule("text_model.*", "backbone.lm.text_model.*"),
                Rule("text_projection.*", "backbone.lm.text_projection.*"),
                Rule("visual_projection.*", "projectors.image.linear.*"),
                Rule("logit_scale", "fusion.logit_scale"),
            ),
            left_out=BUFFERS,
        )


class Siglip:
    """A vision transformer with an attention pool, a text tower that reads both ways, a bias."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        whole = _resolved("siglip", config)
        vision = whole.vision_config
        return ModelConfig(
            lanes={
                "image": LaneConfig(
                    encoder=SiglipConfig(**_shape(vision), feature="pooled"),
                    projector=LinearConfig(project=False),
                    resolution=FixedResolution(fit="stretch"),
                )
            },
            backbone=TextTowerConfig(arch=_text(whole.text_config)),
            fusion=SIGLIP_SCORES,
            template="pair",
        )

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane, text = _sides("siglip", config, "siglip_text_model")
        encoder, fusion = lane.encoder, config.fusion
        if not isinstance(encoder, SiglipConfig) or encoder.feature != "pooled":
            raise refuse_export("siglip", "the encoder is not SigLIP with pooled features")
        if not isinstance(lane.projector, LinearConfig) or lane.projector.project:
            raise refuse_export("siglip", "it has a projector")
        if not isinstance(fusion, ApartConfig) or fusion.bias is None:
            raise refuse_export("siglip", "its scores have no bias")
        return {
            "architectures": ["SiglipModel"],
            "model_type": "siglip",
            "text_config": text,
            "vision_config": _hf_shape("siglip_vision_model", encoder),
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        return KeyMap(
            rules=(
                Rule("vision_model.*", "encoders.image.tower.*"),
                Rule("text_model.*", "backbone.lm.*"),
                Rule("logit_scale", "fusion.logit_scale", lead=1),
                Rule("logit_bias", "fusion.logit_bias", lead=1),
            ),
            left_out=BUFFERS,
        )


# Before training: a factor of 10, and -10 beside it (arXiv:2303.15343, section 3.2).
SIGLIP_SCORES = ApartConfig(scale=math.log(10), bias=-10.0)


def _resolved(family: str, config: Mapping[str, Any]) -> Any:
    """The whole config with transformers' defaults for what the file leaves out."""
    return transformers_config({**text_arch(config), "model_type": family})


def _text(config: Any) -> dict[str, Any]:
    """A text tower's config as far as it differs from the defaults.

    Those of SigLIP name CLIP's begin and end of text, which its vocabulary does not have.
    """
    marks = {name: None for name in ("bos_token_id", "eos_token_id")
             if (getattr(config, name) or 0) >= config.vocab_size}  # fmt: skip
    return text_arch(config.to_diff_dict()) | marks


def _shape(vision: Any) -> dict[str, Any]:
    return {
        "width": vision.hidden_size,
        "layers": vision.num_hidden_layers,
        "heads": vision.num_attention_heads,
        "mlp_width": vision.intermediate_size,
        "image_size_px": vision.image_size,
        "patch_size_px": vision.patch_size,
    }


def _hf_shape(model_type: str, encoder: TowerConfig) -> dict[str, Any]:
    return {"model_type": model_type, **encoder.hf_shape()}


def _sides(family: str, config: ModelConfig, text_type: str) -> tuple[LaneConfig, dict[str, Any]]:
    """The picture's lane, and the text tower's config.

    Raises:
        ConfigError: the model has other sides.
    """
    lane, backbone = config.lanes.get("image"), config.backbone
    if lane is None or set(config.lanes) != {"image"}:
        raise refuse_export(family, "it needs one image lane")
    if not isinstance(backbone, TextTowerConfig) or backbone.arch["model_type"] != text_type:
        raise refuse_export(family, f"the backbone is not a {text_type}")
    return lane, dict(backbone.arch)

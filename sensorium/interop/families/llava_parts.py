"""What the checkpoints of the LLaVA line share in transformers' layout: the tower, the MLP,
and the names of their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.backbones.causal_lm import CausalLMConfig, transformers_config
from sensorium.core.errors import ConfigError
from sensorium.core.parts import ResolutionConfig
from sensorium.encoders.clip import ClipConfig
from sensorium.encoders.siglip import SiglipConfig
from sensorium.encoders.tower import TowerConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.interop.families.base import lm_arch, refuse_export, text_arch
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.text.chat import TemplateName

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


def tower(config: Mapping[str, Any]) -> TowerConfig:
    """The encoder that a foreign config.json means.

    Raises:
        ConfigError: another kind of tower, several layers at once, or features that the tower
            does not have.
    """
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
        values |= {"activation": shape["hidden_act"], "norm_eps": shape.get("layer_norm_eps", 1e-5)}
    if kind.startswith("siglip") and values["feature"] == "patch":
        raise ConfigError("LLaVA's 'default' features drop a CLS token that SigLIP lacks",
                          expected="vision_feature_select_strategy 'full'")  # fmt: skip
    if kind.startswith("siglip"):
        values |= {"feature": "patch", "pooling_head": shape.get("vision_use_head", True)}
    return TOWERS[kind](**values)


def assembled(
    config: Mapping[str, Any],
    encoder: TowerConfig,
    resolution: ResolutionConfig,
    *,
    own_tie: bool = False,
) -> ModelConfig:
    """Tower, two-layer MLP and language model of a foreign config.json.

    Args:
        own_tie: as for `language_model`.
    """
    activation = config.get("projector_hidden_act", "gelu")
    projector = MlpConfig(depth=2, activation=activation)
    lane = LaneConfig(encoder=encoder, projector=projector, resolution=resolution)
    return ModelConfig(
        lanes={"image": lane},
        backbone=language_model(config, own_tie=own_tie),
        template=template(config),
    )


def map_tower(config: Mapping[str, Any]) -> TowerConfig:
    """The encoder of a family that merges tiles to one map.

    Raises:
        ConfigError: it has a CLS token, which has no place on a map.
    """
    encoder = tower(config)
    if encoder.grid().prefix:
        raise ConfigError("a CLS token in each tile, which makes no map",
                          expected="vision_feature_select_strategy 'default'")  # fmt: skip
    return encoder


def language_model(config: Mapping[str, Any], *, own_tie: bool = False) -> CausalLMConfig:
    """The language model that a foreign config.json means.

    Args:
        own_tie: `text_config` alone may tie the output layer to the embedding. Otherwise the
            word of config.json counts, where it has one.
    """
    arch = text_arch(config["text_config"])
    tie = config.get("tie_word_embeddings")
    if tie is not None and not (own_tie and arch.get("tie_word_embeddings")):
        arch["tie_word_embeddings"] = tie
    return CausalLMConfig(arch=arch)


def template(config: Mapping[str, Any]) -> TemplateName:
    """The chat template; foreign ones are programs and are not run."""
    return "vicuna" if config["text_config"].get("model_type") == "llama" else "auto"


def exported_lane(family: str, config: ModelConfig) -> tuple[LaneConfig, dict[str, Any]]:
    """The picture's lane, and what a foreign config.json says of its tower and projector and of
    the language model.

    Raises:
        ConfigError: the model does not fit.
    """
    lane = config.lanes.get("image")
    if lane is None or set(config.lanes) != {"image"} or not config.fusion.fills_slots:
        raise refuse_export(family, "it needs one image lane and splice fusion")
    encoder, projector = lane.encoder, lane.projector
    if not isinstance(encoder, ClipConfig | SiglipConfig) or encoder.select_layer is None:
        raise refuse_export(family, "the encoder is not CLIP or SigLIP with a chosen layer")
    if not isinstance(projector, MlpConfig) or projector.depth != 2 or projector.norm_in:
        raise refuse_export(family, "the projector is not a plain two-layer MLP")
    strategy = {v: k for k, v in FEATURES.items()}.get(encoder.feature)
    if isinstance(encoder, SiglipConfig) and strategy == "default":
        strategy = "full"
    if strategy is None:
        raise refuse_export(family, f"it has no feature {encoder.feature!r}")
    text = lm_arch(family, config)
    own: dict[str, Any] = (
        {"model_type": "clip_vision_model", "hidden_act": encoder.activation,
         "layer_norm_eps": encoder.norm_eps}
        if isinstance(encoder, ClipConfig)
        else {"model_type": "siglip_vision_model", "vision_use_head": encoder.pooling_head}
    )
    return lane, {
        "image_token_index": text.get("pad_token_id") or 0,
        "tie_word_embeddings": bool(transformers_config(text).tie_word_embeddings),
        "text_config": text,
        "image_seq_length": encoder.grid().tokens,
        "projector_hidden_act": projector.activation,
        "multimodal_projector_bias": True,
        "vision_feature_layer": encoder.select_layer,
        "vision_feature_select_strategy": strategy,
        "vision_config": {
            **own,
            "hidden_size": encoder.width,
            "num_hidden_layers": encoder.layers,
            "num_attention_heads": encoder.heads,
            "intermediate_size": encoder.mlp_width,
            "image_size": encoder.image_size_px,
            "patch_size": encoder.patch_size_px,
        },
    }


def key_map(*more: Rule) -> KeyMap:
    """The names of towers, projectors and language models, and `more` of one architecture."""
    return KeyMap(
        rules=(
            Rule("vision_tower.*", "encoders.image.tower.*"),
            Rule("multi_modal_projector.linear_1.*", "projectors.image.layers.0.*"),
            Rule("multi_modal_projector.linear_2.*", "projectors.image.layers.2.*"),
            Rule("language_model.*", "backbone.lm.*"),
            *more,
        ),
        aliases=(
            ("vision_tower.vision_model.", "vision_tower."),
            ("model.vision_tower.vision_model.", "vision_tower."),
            ("model.vision_tower.", "vision_tower."),
            ("model.multi_modal_projector.", "multi_modal_projector."),
            ("model.language_model.", "language_model.model."),
            ("model.image_newline", "image_newline"),
            ("lm_head.", "language_model.lm_head."),
        ),
    )

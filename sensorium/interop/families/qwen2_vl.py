"""Qwen2-VL in transformers' layout (`Qwen2VLForConditionalGeneration`): pictures, no videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.encoders.native_vit import NativeVitConfig
from sensorium.encoders.qwen2_vit import Qwen2VitConfig
from sensorium.input_projectors.patch_merger import PatchMergerConfig
from sensorium.interop.families.base import lm_arch, refuse_export, text_arch
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.media.native import NativeResolution
from sensorium.model.config import LaneConfig, ModelConfig

# transformers' class defaults, which config.json may leave out.
VISION = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "hidden_act": "quick_gelu",
          "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}  # fmt: skip
VISION_KEYS = ("vision_config", "model_type", "image_token_id", "video_token_id",
               "vision_start_token_id", "vision_end_token_id", "vision_token_id")  # fmt: skip


class Qwen2Vl:
    """A tower for pictures of any size, a patch merger, a Qwen2 with M-RoPE."""

    name = "qwen2_vl"

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        vision = VISION | dict(config["vision_config"])
        encoder = Qwen2VitConfig(
            width=vision["embed_dim"],
            layers=vision["depth"],
            heads=vision["num_heads"],
            mlp_width=int(vision["embed_dim"] * vision["mlp_ratio"]),
            activation=vision["hidden_act"],
            patch_size_px=vision["patch_size"],
            frames=vision["temporal_patch_size"],
        )
        projector = PatchMergerConfig(factor=vision["spatial_merge_size"])
        return native_model(encoder, projector, language_model(config, f"{self.name}_text"))

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane, text = exported(self.name, config, f"{self.name}_text")
        encoder, projector = lane.encoder, lane.projector
        if not isinstance(encoder, Qwen2VitConfig):
            raise refuse_export(self.name, "its encoder is not a qwen2_vit")
        if encoder.mlp_width % encoder.width:
            raise refuse_export(self.name, f"its encoder's mlp_width {encoder.mlp_width} is no multiple of its width")
        if not isinstance(projector, PatchMergerConfig):
            raise refuse_export(self.name, "its projector is not a patch_merger")
        vision = {
            "model_type": "qwen2_vl_vision",
            "embed_dim": encoder.width,
            "depth": encoder.layers,
            "num_heads": encoder.heads,
            "mlp_ratio": encoder.mlp_width // encoder.width,
            "hidden_act": encoder.activation,
            "patch_size": encoder.patch_size_px,
            "spatial_merge_size": projector.factor,
            "temporal_patch_size": encoder.frames,
            "hidden_size": config.backbone.d_model,
        }
        return whole_config("Qwen2VLForConditionalGeneration", self.name, vision, text)

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        del config
        return native_key_map()


def native_model(
    encoder: NativeVitConfig, projector: PatchMergerConfig, backbone: CausalLMConfig
) -> ModelConfig:
    """Pictures at their own size, a tower, a merger and a language model."""
    resolution = NativeResolution(patch_px=encoder.patch_size_px, merge=projector.factor)
    lane = LaneConfig(encoder=encoder, projector=projector, resolution=resolution)
    return ModelConfig(lanes={"image": lane}, backbone=backbone, template="qwen2_vl")


def language_model(config: Mapping[str, Any], kind: str) -> CausalLMConfig:
    """The language model of a foreign config.json, which older ones hold without a level of its
    own (`hidden_size` beside `vision_config`).

    Args:
        kind: its model type.
    """
    text = config.get("text_config")
    if text is None:
        text = {k: v for k, v in config.items() if k not in VISION_KEYS}
    arch = text_arch(text) | {"model_type": kind}
    # The outer word counts where there is one.
    tie = bool(config.get("tie_word_embeddings") or arch.get("tie_word_embeddings"))
    return CausalLMConfig(arch=arch | {"tie_word_embeddings": tie})


def exported(family: str, config: ModelConfig, kind: str) -> tuple[LaneConfig, dict[str, Any]]:
    """The picture's lane and the language model's config.

    Args:
        kind: the language model's type.

    Raises:
        ConfigError: the model does not fit.
    """
    lane = config.lanes.get("image")
    if lane is None or set(config.lanes) != {"image"} or not config.fusion.fills_slots:
        raise refuse_export(family, "it needs one image lane and splice fusion")
    if not isinstance(lane.resolution, NativeResolution):
        raise refuse_export(family, "its pictures are not laid out at their own size (native)")
    text = lm_arch(family, config)
    if text.get("model_type") != kind:
        raise refuse_export(family, f"its language model is a {text.get('model_type')}")
    return lane, text


def whole_config(
    class_name: str, family: str, vision: dict[str, Any], text: dict[str, Any]
) -> dict[str, Any]:
    """A foreign config.json. A model that was not imported has no image token of its own: the last
    word of the vocabulary but one stands for it, the last for a video's."""
    words = CausalLMConfig(arch=text).vocab_size
    return {
        "architectures": [class_name],
        "model_type": family,
        "image_token_id": words - 2,
        "video_token_id": words - 1,
        "tie_word_embeddings": bool(text.get("tie_word_embeddings")),
        "text_config": text,
        "vision_config": vision,
    }


def native_key_map(*more: Rule) -> KeyMap:
    """Names of tensors, and `more` of one architecture; in memory newer versions have `model.` in
    front of both halves."""
    return KeyMap(
        rules=(
            Rule("visual.patch_embed.proj.weight", "encoders.image.patch_embed.weight"),
            Rule("visual.blocks.*", "encoders.image.blocks.*"),
            Rule("visual.merger.ln_q.*", "projectors.image.norm.*"),
            Rule("visual.merger.mlp.*", "projectors.image.layers.*"),
            Rule("model.*", "backbone.lm.model.*"),
            Rule("lm_head.*", "backbone.lm.lm_head.*"),
            *more,
        ),
        aliases=(("model.visual.", "visual."), ("model.language_model.", "model.")),
    )

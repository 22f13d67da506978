"""Janus and Janus-Pro in transformers' layout (`JanusForConditionalGeneration`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sensorium.backbones.causal_lm import CausalLMConfig, transformers_config
from sensorium.core.errors import ConfigError
from sensorium.encoders.siglip import SiglipConfig
from sensorium.generators.janus_vq import JanusVqConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.interop.families.base import lm_arch, refuse_export, text_arch
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.picture_layouts import JANUS
from sensorium.model.picture_words import CodeTablesConfig, PictureWordsConfig

# transformers' class defaults, which config.json may leave out.
VISION_DEFAULTS = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 384, "patch_size": 16,
    "hidden_act": "gelu", "mlp_ratio": 4.0, "use_qk_norm": False, "depth": 2, "projection_dim": 2048,
}  # fmt: skip
VQ_DEFAULTS = {"embed_dim": 8, "projection_dim": 2048, "num_hidden_layers": 2, "image_token_embed_dim": 2048}


class Janus:
    """SigLIP reads, a VQ model's codes with tables of their own are written."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        vision = VISION_DEFAULTS | dict(config.get("vision_config") or {})
        vq = VQ_DEFAULTS | dict(config.get("vq_config") or {})
        arch: dict[str, Any] = {"model_type": "llama"} | text_arch(config.get("text_config") or {})
        arch["tie_word_embeddings"] = bool(config.get("tie_word_embeddings", True))
        if vision["use_qk_norm"] or vision["hidden_act"] not in ("gelu", "gelu_pytorch_tanh"):
            raise refuse_import(f"use_qk_norm {vision['use_qk_norm']}, hidden_act {vision['hidden_act']!r}")
        backbone = CausalLMConfig(arch=arch)
        widths = {vision["projection_dim"], vq["projection_dim"], vq["image_token_embed_dim"]}
        if widths != {backbone.d_model}:
            raise refuse_import(f"maps of widths {sorted(widths)} for an LLM of {backbone.d_model}")
        lane = LaneConfig(
            encoder=SiglipConfig(
                width=vision["hidden_size"], layers=vision["num_hidden_layers"], heads=vision["num_attention_heads"],
                mlp_width=int(vision["hidden_size"] * vision["mlp_ratio"]), image_size_px=vision["image_size"],
                patch_size_px=vision["patch_size"], activation=vision["hidden_act"], pooling_head=False,
            ),
            projector=MlpConfig(depth=vision["depth"]),
        )  # fmt: skip
        told = PictureWordsConfig(
            tokenizer=JanusVqConfig.published(config, {}),
            tables=CodeTablesConfig(width=vq["embed_dim"], depth=vq["num_hidden_layers"]),
            **JANUS,
        )
        return ModelConfig(lanes={"image": lane}, backbone=backbone, picture_words=told, template="janus")

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane, told = config.lanes.get("image"), config.picture_words
        if lane is None or set(config.lanes) != {"image"} or config.hands or not config.fusion.fills_slots:
            raise refuse_export("janus", "it needs one image lane, no hands, and splice fusion")
        if told is None or told.tables is None or not isinstance(told.tokenizer, JanusVqConfig):
            raise refuse_export("janus", "it needs picture words with tables by Janus' tokenizer")
        tower, projector, d_model = lane.encoder, lane.projector, config.backbone.d_model
        if not isinstance(tower, SiglipConfig) or tower.pooling_head or tower.feature != "patch" or tower.select_layer is not None:
            raise refuse_export("janus", "the encoder is not SigLIP without its head")
        if tower.mlp_width % tower.width or projector != MlpConfig(depth=getattr(projector, "depth", 0)):
            raise refuse_export("janus", "the projector is not a plain MLP, or the tower's is no multiple of its width")
        if told.tables.head_width not in (None, d_model):
            raise refuse_export("janus", "the head has a width of its own")
        arch, vq = lm_arch("janus", config), told.tokenizer
        return {
            "architectures": ["JanusForConditionalGeneration"],
            "model_type": "janus",
            "text_config": arch,
            "vision_config": {
                "hidden_size": tower.width, "num_hidden_layers": tower.layers, "num_attention_heads": tower.heads,
                "image_size": tower.image_size_px, "patch_size": tower.patch_size_px, "hidden_act": tower.activation,
                "mlp_ratio": tower.mlp_width // tower.width, "depth": cast(Any, projector).depth, "projection_dim": d_model,
                "num_image_tokens": tower.grid().tokens,
            },
            "vq_config": {
                **vq.hf_sizes(), "num_embeddings": vq.codes, "num_hidden_layers": told.tables.depth, "projection_dim": d_model,
                "image_token_embed_dim": d_model, "num_patches": vq.grid().h,
            },
            "image_token_id": None,
            "tie_word_embeddings": bool(transformers_config(arch).tie_word_embeddings),
        }  # fmt: skip

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        vision = VISION_DEFAULTS | dict(config.get("vision_config") or {})
        attention = "encoder.layers.#.self_attn."
        aligner = [Rule(f"model.aligner.hidden_layers.{i}.*", f"projectors.image.layers.{2 * i + 2}.*") for i in range(vision["depth"] - 1)]
        return KeyMap(
            rules=(
                Rule(f"model.vision_model.{attention}projection_layer.*", f"encoders.image.tower.{attention}out_proj.*"),
                Rule("model.vision_model.*", "encoders.image.tower.*"),
                Rule("model.aligner.fc1.*", "projectors.image.layers.0.*"),
                *aligner,
                Rule("model.vqmodel.*", "picture_tokenizer.model.*"),
                Rule("model.generation_embeddings.*", "code_tables.embedding.*"),
                Rule("model.generation_aligner.fc1.*", "code_tables.first.*"),
                Rule("model.generation_aligner.hidden_layers.*", "code_tables.hidden.*"),
                Rule("model.generation_head.proj_out.*", "code_tables.head_in.*"),
                Rule("model.generation_head.vision_head.*", "code_tables.head_out.*"),
                Rule("model.language_model.*", "backbone.lm.model.*"),
                Rule("lm_head.*", "backbone.lm.lm_head.*"),
            )
        )


def refuse_import(found: str) -> ConfigError:
    """The error for a checkpoint that is not like the published ones."""
    return ConfigError(f"Janus with {found}", expected="a tower without query and key norms, and maps of the LLM's width")

"""IDEFICS (gated cross-attention layers in a Llama), in transformers' layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import ConfigError
from sensorium.encoders.idefics_vit import IdeficsVitConfig
from sensorium.fusion.gated_cross_attention import GatedCrossAttentionConfig
from sensorium.input_projectors.perceiver import PerceiverConfig
from sensorium.interop.families.base import lm_arch, refuse_export
from sensorium.interop.key_map import Join, KeyMap, Rule
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig

LLAMA_KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "rope_parameters", "rope_theta", "bos_token_id",
    "eos_token_id", "pad_token_id", "tie_word_embeddings", "initializer_range",
)  # fmt: skip
PERCEIVER = (
    ("0.context_layer_norm.*", "norm_x.*"),
    ("0.latents_layer_norm.*", "norm_z.*"),
    ("0.q_proj.*", "attention.q.*"),
    ("0.k_proj.*", "attention.k.*"),
    ("0.v_proj.*", "attention.v.*"),
    ("0.output_proj.*", "attention.out.*"),
    ("0.q_layer_norm.*", "attention.q_norm.*"),
    ("0.k_layer_norm.*", "attention.k_norm.*"),
    ("1.ln.*", "norm_ff.*"),
    ("1.fc.*", "up.*"),
    ("1.c_proj.*", "down.*"),
)
GATED = (
    ("input_layernorm.*", "attention_norm.*"),
    ("cross_attn.q_proj.*", "attention.q.*"),
    ("cross_attn.k_proj.*", "attention.k.*"),
    ("cross_attn.v_proj.*", "attention.v.*"),
    ("cross_attn.o_proj.*", "attention.out.*"),
    ("cross_attn.q_layer_norm.*", "attention.q_norm.*"),
    ("cross_attn.k_layer_norm.*", "attention.k_norm.*"),
    ("post_attention_layernorm.*", "mlp_norm.*"),
    ("mlp.gate_proj.*", "mlp_gate.*"),
    ("mlp.up_proj.*", "mlp_up.*"),
    ("mlp.down_proj.*", "mlp_down.*"),
)


class Idefics:
    """CLIP-H, perceiver resampler, gated cross-attention before every n-th layer."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        if not config.get("use_resampler", False):
            raise ConfigError("IDEFICS without its resampler", expected="use_resampler: true")
        vision, perceiver = config["vision_config"], config["perceiver_config"]
        arch = {k: config[k] for k in LLAMA_KEYS if config.get(k) is not None}
        vocab = config["vocab_size"] + config.get("additional_vocab_size", 0)
        return ModelConfig(
            lanes={
                "image": LaneConfig(
                    encoder=IdeficsVitConfig(
                        width=vision["embed_dim"],
                        layers=vision["num_hidden_layers"],
                        heads=vision["num_attention_heads"],
                        mlp_width=vision["intermediate_size"],
                        image_size_px=vision["image_size"],
                        patch_size_px=vision["patch_size"],
                        activation=vision.get("hidden_act", "gelu"),
                    ),
                    projector=PerceiverConfig(
                        latents=perceiver["resampler_n_latents"],
                        depth=perceiver["resampler_depth"],
                        heads=perceiver["resampler_n_heads"],
                        head_dim=perceiver["resampler_head_dim"],
                        norm_heads=perceiver["qk_layer_norms_perceiver"],
                        activation="relu",
                        project=False,
                    ),
                    resolution=FixedResolution(fit="stretch"),
                )
            },
            backbone=CausalLMConfig(arch={"model_type": "llama", "vocab_size": vocab} | arch),
            fusion=_blocks(
                config,
                config["cross_layer_interval"],
                norm_heads=config.get("qk_layer_norms", False),
                gate="vector" if config.get("alpha_type") == "vector" else "scalar",
            ),
            template="plain",
        )

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        """All words in one matrix: IDEFICS' second one, of added words, is left out."""
        lane, fusion = config.lanes.get("image"), config.fusion
        arch = lm_arch("idefics", config)
        if lane is None or not isinstance(lane.encoder, IdeficsVitConfig):
            raise refuse_export("idefics", "the encoder is not IDEFICS' own")
        tower, perceiver = lane.encoder, lane.projector
        if not isinstance(perceiver, PerceiverConfig) or perceiver.project or perceiver.activation != "relu":
            raise refuse_export("idefics", "the projector is not a resampler with ReLU and without a last map")
        if not isinstance(fusion, GatedCrossAttentionConfig) or fusion != _blocks(
            arch, fusion.every, norm_heads=fusion.norm_heads, gate=fusion.gate
        ):
            raise refuse_export("idefics", "the blocks are not as large as the language model's layers")
        if arch.get("model_type") != "llama" or _key_heads(arch) != arch["num_attention_heads"]:
            raise refuse_export("idefics", "the language model is not the first LLaMA")
        return {
            "architectures": ["IdeficsForVisionText2Text"],
            "model_type": "idefics",
            **{k: arch[k] for k in LLAMA_KEYS if k in arch},
            "vocab_size": arch["vocab_size"],
            "additional_vocab_size": 0,
            "cross_layer_interval": fusion.every,
            "qk_layer_norms": fusion.norm_heads,
            "alpha_type": "vector" if fusion.gate == "vector" else "float",
            "use_resampler": True,
            "vision_config": {
                "embed_dim": tower.width,
                "num_hidden_layers": tower.layers,
                "num_attention_heads": tower.heads,
                "intermediate_size": tower.mlp_width,
                "image_size": tower.image_size_px,
                "patch_size": tower.patch_size_px,
                "hidden_act": tower.activation,
            },
            "perceiver_config": {
                "use_resampler": True,
                "resampler_n_latents": perceiver.latents,
                "resampler_depth": perceiver.depth,
                "resampler_n_heads": perceiver.heads,
                "resampler_head_dim": perceiver.head_dim,
                "qk_layer_norms_perceiver": perceiver.norm_heads,
            },
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        lead = 2 if config.get("alpha_type") == "vector" else 0
        blocks, mine = "model.perceiver_resampler.blocks.#.", "projectors.image.blocks.#."
        gated, ours = "model.gated_cross_attn_layers.#.", "fusion.blocks.#."
        lm = "backbone.lm.model."
        return KeyMap(
            rules=(
                *(Rule(blocks + a, mine + b) for a, b in PERCEIVER),
                Rule("model.perceiver_resampler.latents", "projectors.image.latents_QD"),
                Rule("model.perceiver_resampler.layer_norm.*", "projectors.image.norm.*"),
                *(Rule(gated + a, ours + b) for a, b in GATED),
                Rule(f"{gated}alpha_cross_attn", f"{ours}attention_gate", lead=lead),
                Rule(f"{gated}alpha_dense", f"{ours}mlp_gate_scale", lead=lead),
                Rule("model.vision_model.*", "encoders.image.tower.*"),
                Rule("model.layers.*", f"{lm}layers.*"),
                Rule("model.norm.*", f"{lm}norm.*"),
                Rule("model.embed_tokens.weight", f"{lm}embed_tokens.weight"),
                Rule("lm_head.weight", "backbone.lm.lm_head.weight"),
            ),
            joins=(
                Join("model.embed_tokens.weight", "model.embed_tokens.additional_embedding.weight",
                     f"{lm}embed_tokens.weight", config["vocab_size"]),
                Join("lm_head.weight", "lm_head.additional_fc.weight",
                     "backbone.lm.lm_head.weight", config["vocab_size"]),
            ),
        )  # fmt: skip


def _blocks(
    config: Mapping[str, Any], every: int, *, norm_heads: bool, gate: Literal["scalar", "vector"]
) -> GatedCrossAttentionConfig:
    """Blocks as large as the layers of the language model that the config describes."""
    heads = config["num_attention_heads"]
    return GatedCrossAttentionConfig(
        every=every,
        heads=heads,
        head_dim=config["hidden_size"] // heads,
        mlp_width=config["intermediate_size"],
        feed_forward="swiglu",
        norm="rms",
        norm_eps=config.get("rms_norm_eps", 1e-6),
        norm_heads=norm_heads,
        gate=gate,
    )


def _key_heads(arch: Mapping[str, Any]) -> int:
    return arch.get("num_key_value_heads") or arch["num_attention_heads"]

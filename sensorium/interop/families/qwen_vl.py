"""Qwen-VL, the first (arXiv:2308.12966), as its checkpoints are laid out; transformers does not have it.

Sources: `modeling_qwen.py`, `visual.py` and `config.json` of huggingface.co/Qwen/Qwen-VL-Chat. Qwen-7B is
computed as Qwen2 is: its `intermediate_size` counts both halves of the gated layer, `w2` is the gate. Beyond
`seq_length` tokens (2,048) it scales queries by a logarithm and stretches its rotary base when it answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import ConfigError
from sensorium.encoders.qwen_vit import QwenVitConfig
from sensorium.input_projectors.position_aware import PositionAwareConfig
from sensorium.interop.families.base import lm_arch, refuse_export
from sensorium.interop.key_map import KeyMap, Rule, Split
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig

HEAD_WIDTH = 128
"""Of the adapter, whatever its width."""
VIT, LM = "transformer.visual.", "backbone.lm.model."
BLOCK, MINE = f"{VIT}transformer.resblocks.#.", "encoders.image.tower.encoder.layers.#."
POOL, ADAPTER = f"{VIT}attn_pool.", "projectors.image."
LAYER, OURS = "transformer.h.#.", f"{LM}layers.#."
RULES = (
    Rule(f"{VIT}conv1.weight", "encoders.image.tower.patches.weight"),
    Rule(f"{VIT}positional_embedding", "encoders.image.tower.positions_PD"),
    Rule(f"{VIT}ln_pre.*", "encoders.image.tower.pre_layrnorm.*"),
    Rule(f"{BLOCK}ln_1.*", f"{MINE}layer_norm1.*"),
    Rule(f"{BLOCK}ln_2.*", f"{MINE}layer_norm2.*"),
    Rule(f"{BLOCK}attn.out_proj.*", f"{MINE}self_attn.out_proj.*"),
    Rule(f"{BLOCK}mlp.c_fc.*", f"{MINE}mlp.fc1.*"),
    Rule(f"{BLOCK}mlp.c_proj.*", f"{MINE}mlp.fc2.*"),
    Rule(f"{POOL}query", f"{ADAPTER}queries_QD"),
    Rule(f"{POOL}pos_embed", f"{ADAPTER}table_QD"),
    Rule(f"{POOL}kv_proj.weight", f"{ADAPTER}kv_proj.weight"),
    Rule(f"{POOL}ln_q.*", f"{ADAPTER}norm_q.*"),
    Rule(f"{POOL}ln_kv.*", f"{ADAPTER}norm_kv.*"),
    Rule(f"{POOL}attn.out_proj.*", f"{ADAPTER}attention.out.*"),
    Rule(f"{VIT}ln_post.*", f"{ADAPTER}norm_out.*"),
    Rule(f"{VIT}proj", f"{ADAPTER}out.weight", turned=True),
    Rule("transformer.wte.weight", f"{LM}embed_tokens.weight"),
    Rule(f"{LAYER}ln_1.weight", f"{OURS}input_layernorm.weight"),
    Rule(f"{LAYER}ln_2.weight", f"{OURS}post_attention_layernorm.weight"),
    Rule(f"{LAYER}attn.c_proj.weight", f"{OURS}self_attn.o_proj.weight"),
    Rule(f"{LAYER}mlp.w1.weight", f"{OURS}mlp.up_proj.weight"),
    Rule(f"{LAYER}mlp.w2.weight", f"{OURS}mlp.gate_proj.weight"),
    Rule(f"{LAYER}mlp.c_proj.weight", f"{OURS}mlp.down_proj.weight"),
    Rule("transformer.ln_f.weight", f"{LM}norm.weight"),
    Rule("lm_head.weight", "backbone.lm.lm_head.weight"),
)
PARTS = ("q_proj", "k_proj", "v_proj")
LM_SPLITS = tuple(Split(f"{LAYER}attn.c_attn.{kind}", tuple(f"{OURS}self_attn.{p}.{kind}" for p in PARTS))
                  for kind in ("weight", "bias"))  # fmt: skip


class QwenVl:
    """OpenCLIP's bigG, a position-aware adapter, Qwen-7B."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        seen = config.get("visual")
        if not isinstance(seen, Mapping):
            raise ConfigError("a Qwen checkpoint without a 'visual' section", expected="Qwen-VL")
        check_qwen(config)
        lane = LaneConfig(
            encoder=QwenVitConfig(
                width=seen["width"],
                layers=seen["layers"],
                heads=seen["heads"],
                mlp_width=int(seen["width"] * seen["mlp_ratio"]),
                image_size_px=seen["image_size"],
                patch_size_px=seen["patch_size"],
            ),
            projector=PositionAwareConfig(
                side=round(seen.get("n_queries", 256) ** 0.5), heads=seen["output_dim"] // HEAD_WIDTH
            ),
            resolution=FixedResolution(fit="stretch"),
        )
        # The three marks of a picture have ids in a row: <img>, </img>, <imgpad>.
        backbone = CausalLMConfig(arch=qwen_arch(config), stretched_beyond=stretched_beyond(config))
        return ModelConfig(lanes={"image": lane}, backbone=backbone, template="qwen_vl", boxes="qwen_vl")

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane, arch = config.lanes.get("image"), lm_arch("qwen", config)
        if lane is None or not isinstance(lane.encoder, QwenVitConfig):
            raise refuse_export("qwen", "the encoder is not Qwen-VL's")
        if not isinstance(lane.projector, PositionAwareConfig):
            raise refuse_export("qwen", "the projector is not position_aware")
        if arch["model_type"] != "qwen2" or arch["num_key_value_heads"] != arch["num_attention_heads"]:
            raise refuse_export("qwen", "the language model is not Qwen's first")
        tower, length = lane.encoder, getattr(config.backbone, "stretched_beyond", None)
        return {
            "architectures": ["QWenLMHeadModel"],
            "model_type": "qwen",
            "vocab_size": arch["vocab_size"],
            "hidden_size": arch["hidden_size"],
            "intermediate_size": 2 * arch["intermediate_size"],
            "num_hidden_layers": arch["num_hidden_layers"],
            "num_attention_heads": arch["num_attention_heads"],
            "kv_channels": arch["hidden_size"] // arch["num_attention_heads"],
            "layer_norm_epsilon": arch["rms_norm_eps"],
            "max_position_embeddings": arch["max_position_embeddings"],
            "rotary_emb_base": arch["rope_theta"],
            "rotary_pct": 1.0,
            "no_bias": True,
            "seq_length": length or 2048,
            "use_dynamic_ntk": length is not None,
            "use_logn_attn": length is not None,
            "tie_word_embeddings": arch["tie_word_embeddings"],
            "visual": {
                "width": tower.width,
                "layers": tower.layers,
                "heads": tower.heads,
                "mlp_ratio": round(tower.mlp_width / tower.width + 5e-5, 4),
                "image_size": tower.image_size_px,
                "patch_size": tower.patch_size_px,
                "output_dim": arch["hidden_size"],
                "n_queries": lane.projector.side**2,
                "image_start_id": 151857,
            },
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        heads, splits = config["visual"]["heads"], list(LM_SPLITS)
        for kind in ("weight", "bias"):
            splits += [
                Split(f"{BLOCK}attn.in_proj.{kind}",
                      tuple(f"{MINE}self_attn.{p}.{kind}" for p in PARTS), heads=heads),
                Split(f"{POOL}attn.in_proj_{kind}", tuple(f"{ADAPTER}attention.{p[0]}.{kind}" for p in PARTS)),
            ]  # fmt: skip
        return KeyMap(rules=RULES, splits=tuple(splits))


def check_qwen(config: Mapping[str, Any]) -> None:
    """Refuse what Qwen2 does not compute.

    Raises:
        ConfigError: rotary positions of a part of each head, or biases everywhere.
    """
    for key, fits in (("rotary_pct", 1.0), ("no_bias", True)):
        if config.get(key, fits) != fits:
            raise ConfigError(f"a Qwen with {key}: {config[key]}", expected=str(fits))


def stretched_beyond(config: Mapping[str, Any]) -> int | None:
    """Tokens of a row beyond which it is read otherwise; None: it never is.

    Raises:
        ConfigError: one of the two ways of doing so without the other.
    """
    both = [bool(config.get(name, True)) for name in ("use_dynamic_ntk", "use_logn_attn")]
    if both[0] != both[1]:
        raise ConfigError(f"a Qwen with use_dynamic_ntk: {both[0]} and use_logn_attn: {both[1]}", expected="both, or neither")
    return int(config.get("seq_length", 2048)) if both[0] else None


def qwen_arch(config: Mapping[str, Any]) -> dict[str, Any]:
    """Qwen-7B's config.json as Qwen2's."""
    return {
        "model_type": "qwen2",
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"] // 2,
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": config["num_attention_heads"],
        "max_position_embeddings": config.get("max_position_embeddings", 8192),
        "rms_norm_eps": config.get("layer_norm_epsilon", 1e-6),
        "rope_theta": float(config.get("rotary_emb_base", 10000)),
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
    }

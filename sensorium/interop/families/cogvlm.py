"""CogVLM, in the layout of its authors' code for transformers (THUDM/cogvlm-chat-hf).

That code lies beside the weights and is never run; names and sizes are its facts
(modeling_cogvlm.py, visual.py, configuration_cogvlm.py). In one matrix it has query, key and value, in
the order of their rows, of text and of picture alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.encoders.eva2 import Eva2Config
from sensorium.fusion.visual_expert import VisualExpertConfig
from sensorium.input_projectors.glu import GluConfig
from sensorium.interop.families.base import lm_arch, refuse_export
from sensorium.interop.key_map import Join, KeyMap, Rule, Split
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.text.chat import TemplateName

LLAMA_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "hidden_act", "max_position_embeddings", "rms_norm_eps", "bos_token_id", "eos_token_id",
    "pad_token_id", "tie_word_embeddings", "initializer_range",
)  # fmt: skip
TEMPLATES: dict[str, TemplateName] = {"chat": "cogvlm", "vqa": "cogvlm_vqa", "base": "cogvlm_base"}
# What the authors' config.json says beside sizes.
NAMES = {
    "architectures": ["CogVLMForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_cogvlm.CogVLMConfig",
                 "AutoModelForCausalLM": "modeling_cogvlm.CogVLMForCausalLM"},
}  # fmt: skip
VISION = {"width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_heads",
          "mlp_width": "intermediate_size", "image_size_px": "image_size",
          "patch_size_px": "patch_size", "norm_eps": "layer_norm_eps"}  # fmt: skip
BLOCK = (
    ("input_layernorm.*", "norm_1.*"),
    ("attention.dense.*", "attention.out.*"),
    ("post_attention_layernorm.*", "norm_2.*"),
    ("mlp.fc1.*", "mlp.up.*"),
    ("mlp.fc2.*", "mlp.down.*"),
)
GLU = (
    ("linear_proj.*", "proj.*"),
    ("norm1.*", "norm.*"),
    ("gate_proj.*", "gate.*"),
    ("dense_h_to_4h.*", "up.*"),
    ("dense_4h_to_h.*", "down.*"),
)


class CogVlm:
    """EVA2-CLIP-E, gated adapter, Vicuna with a visual expert in every layer."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        vision = config["vision_config"]
        arch = {key: config[key] for key in LLAMA_KEYS if config.get(key) is not None}
        lane = LaneConfig(
            encoder=Eva2Config(**{ours: vision[theirs] for ours, theirs in VISION.items()}),
            projector=GluConfig(mlp_width=config["intermediate_size"], ends=True),
            resolution=FixedResolution(fit="stretch"),
        )
        return ModelConfig(
            lanes={"image": lane},
            backbone=CausalLMConfig(arch={"model_type": "llama"} | arch),
            fusion=VisualExpertConfig(),
            template=TEMPLATES.get(config.get("template_version", "chat"), "cogvlm"),
            boxes="cogvlm",
        )

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        text, lane = lm_arch("cogvlm", config), config.lanes.get("image")
        if lane is None or not isinstance(config.fusion, VisualExpertConfig):
            raise refuse_export("cogvlm", "it needs one image lane and fusion visual_expert")
        if lane.detail is not None:
            raise refuse_export("cogvlm", "a second encoder sees its pictures finer, which is CogAgent's (--to cogagent)")
        tower, glu = lane.encoder, lane.projector
        if not isinstance(tower, Eva2Config) or tower.gated or tower.norm != "behind":
            raise refuse_export("cogvlm", "the encoder is not EVA2-CLIP-E")
        if not isinstance(glu, GluConfig) or glu.mlp_width != text.get("intermediate_size"):
            raise refuse_export("cogvlm", "the projector is not a glu as wide inside as the LLM")
        if text.get("num_key_value_heads", text["num_attention_heads"]) != text["num_attention_heads"]:
            raise refuse_export("cogvlm", "the LLM has fewer key heads than heads")
        shape = {theirs: getattr(tower, ours) for ours, theirs in VISION.items()}
        more = {"in_channels": 3, "hidden_act": "gelu", "dropout_prob": 0.0,
                "num_positions": 1 + tower.grid().tokens}  # fmt: skip
        versions = {ours: theirs for theirs, ours in TEMPLATES.items()}
        kept = {key: text[key] for key in LLAMA_KEYS if key in text}
        return {**NAMES, **kept,
                "template_version": versions.get(config.template, "chat"),
                "vision_config": shape | more}  # fmt: skip

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        layer, lm = "model.layers.#.", "backbone.lm.model.layers.#."
        experts, tower = "fusion.layers.#.", "encoders.image.tower."
        patches, block = "model.vision.patch_embedding.", "model.vision.transformer.layers.#."
        attention = f"{layer}self_attn."
        return KeyMap(
            rules=(
                Rule(f"{attention}language_expert_dense.*", f"{lm}self_attn.o_proj.*"),
                Rule(f"{attention}vision_expert_dense.*", f"{experts}self_attn.o_proj.*"),
                Rule(f"{layer}mlp.language_mlp.*", f"{lm}mlp.*"),
                Rule(f"{layer}mlp.vision_mlp.*", f"{experts}mlp.*"),
                Rule(f"{layer}input_layernorm.weight", f"{lm}input_layernorm.weight"),
                Rule(f"{layer}post_attention_layernorm.weight", f"{lm}post_attention_layernorm.weight"),
                Rule("model.norm.weight", "backbone.lm.model.norm.weight"),
                Rule("model.embed_tokens.weight", "backbone.lm.model.embed_tokens.weight"),
                Rule("lm_head.weight", "backbone.lm.lm_head.weight"),
                Rule(f"{patches}cls_embedding", f"{tower}cls_D", lead=1),
                Rule(f"{patches}position_embedding.weight", f"{tower}positions_LD"),
                Rule(f"{patches}proj.*", f"{tower}patches.*"),
                *(Rule(block + a, f"{tower}blocks.#.{b}") for a, b in BLOCK),
                *(Rule(f"model.vision.linear_proj.{a}", f"projectors.image.{b}") for a, b in GLU),
            ),
            joins=(Join("model.vision.boi", "model.vision.eoi", "projectors.image.ends_2D", 1, lead=1),),
            splits=(
                _qkv(f"{attention}language_expert_query_key_value.weight", f"{lm}self_attn.", "_proj.weight"),
                _qkv(f"{attention}vision_expert_query_key_value.weight", f"{experts}self_attn.", "_proj.weight"),
                *(_qkv(f"{block}attention.query_key_value.{end}", f"{tower}blocks.#.attention.", f".{end}")
                  for end in ("weight", "bias")),
            ),
            left_out=("rotary_emb.inv_freq",),
        )  # fmt: skip


def _qkv(theirs: str, before: str, behind: str) -> Split:
    return Split(theirs, tuple(f"{before}{part}{behind}" for part in "qkv"))

"""CogAgent, in the layout of its authors' code for transformers (THUDM/cogagent-chat-hf).

That code lies beside the weights and is never run; names and sizes are its facts (modeling_cogagent.py, visual.py,
cross_visual.py, as other projects that read these weights repeat them). Language model, experts and
first tower are CogVLM's. Of the finer tower the files hold a last block, a norm and a head that no
output goes through: they are left out, and a file written here lacks them. The `<EOI>` that its code writes in front
of a question (`vqa`, `chat_old`) is not written here, and `chat_old` is read as `chat`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.encoders.eva2 import Eva2Config
from sensorium.fusion.visual_expert_detail import VisualExpertDetailConfig
from sensorium.interop.families.base import refuse_export
from sensorium.interop.families.cogvlm import CogVlm
from sensorium.interop.key_map import KeyMap, Rule, Split
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.text.chat import TemplateName

TEMPLATES: dict[str, TemplateName] = {"chat": "cogvlm", "vqa": "cogvlm_vqa", "base": "cogvlm_base"}
NAMES = {
    "architectures": ["CogAgentForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_cogagent.CogAgentConfig",
                 "AutoModelForCausalLM": "modeling_cogagent.CogAgentForCausalLM"},
}  # fmt: skip
# Of EVA2-CLIP-L, whose sizes but these two stand in cross_visual.py and not in config.json.
HEAD, RATIO = 64, 2.6667
BLOCK = (
    ("norm1.*", "norm_1.*"), ("norm2.*", "norm_2.*"),
    ("attn.q_proj.weight", "attention.q.weight"), ("attn.q_bias", "attention.q.bias"),
    ("attn.k_proj.weight", "attention.k.weight"),
    ("attn.v_proj.weight", "attention.v.weight"), ("attn.v_bias", "attention.v.bias"),
    ("attn.inner_attn_ln.*", "attention.norm.*"), ("attn.proj.*", "attention.out.*"),
    ("mlp.w1.*", "mlp.gate.*"), ("mlp.w2.*", "mlp.up.*"), ("mlp.ffn_ln.*", "mlp.norm.*"), ("mlp.w3.*", "mlp.down.*"),
)  # fmt: skip


def finer(width: int, size_px: int) -> Eva2Config:
    """The second tower of this width."""
    return Eva2Config.large(size_px, width=width, heads=max(1, width // HEAD), mlp_width=int(width * RATIO),
                            positions_behind=True)  # fmt: skip


class CogAgent:
    """CogVLM, EVA2-CLIP-L, and attention to it in every layer."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        model = CogVlm().to_ours(config)
        lane = model.lanes["image"]
        tower = lane.encoder.model_copy(update={"positions_behind": True})
        detail = finer(config["cross_hidden_size"], config["cross_image_size"])
        heads = config["num_attention_heads"]
        fusion = VisualExpertDetailConfig(
            heads=heads, head_dim=config["cross_compute_hidden_size"] // heads, norm_eps=config["rms_norm_eps"]
        )
        lanes = {"image": lane.model_copy(update={"encoder": tower, "detail": detail})}
        template = TEMPLATES.get(config.get("template_version", "chat"), "cogvlm")
        return model.model_copy(update={"lanes": lanes, "fusion": fusion, "template": template})

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        fusion, lane = config.fusion, config.lanes.get("image")
        if lane is None or not isinstance(fusion, VisualExpertDetailConfig):
            raise refuse_export("cogagent", "it needs one image lane and fusion visual_expert_detail")
        _check(lane, fusion, config)
        alone = {"lanes": {"image": lane.model_copy(update={"detail": None})}}
        written = CogVlm().to_theirs(config.model_copy(update=alone)) | NAMES
        detail: Any = lane.detail
        return {**written, "cross_hidden_size": detail.width, "cross_image_size": detail.image_size_px,
                "cross_compute_hidden_size": fusion.heads * fusion.head_dim}  # fmt: skip

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        base = CogVlm().key_map(config)
        theirs, ours = "model.cross_vision.vit.model.", "encoders.image_detail.tower."
        layer, cross = "model.layers.#.", "fusion.cross.#."
        more = (
            Rule("model.vision.pos_embed", "encoders.image.tower.behind_LD"),
            Rule("model.cross_vision.pos_embed", f"{ours}behind_LD"),
            Rule(f"{theirs}patch_embed.proj.*", f"{ours}patches.*"),
            Rule(f"{theirs}cls_token", f"{ours}cls_D", lead=2),
            Rule(f"{theirs}pos_embed", f"{ours}positions_LD", lead=1),
            *(Rule(f"{theirs}blocks.#.{a}", f"{ours}blocks.#.{b}") for a, b in BLOCK),
            Rule(f"{layer}post_cross_attention_layernorm.weight", f"{cross}norm.weight"),
            Rule(f"{layer}cross_attn.query.weight", f"{cross}attention.q.weight"),
            Rule(f"{layer}cross_attn.dense.weight", f"{cross}attention.out.weight"),
        )
        key_value = Split(f"{layer}cross_attn.key_value.weight",
                          tuple(f"{cross}attention.{part}.weight" for part in "kv"))  # fmt: skip
        last = finer(config["cross_hidden_size"], config["cross_image_size"]).layers
        unused = [f"{theirs}blocks.{last}.{name}" for name in _block_names()]
        unused += [f"{theirs}{name}" for name in ("norm.weight", "norm.bias", "head.weight", "head.bias")]
        return KeyMap(
            rules=(*base.rules, *more), joins=base.joins, splits=(*base.splits, key_value),
            left_out=(*base.left_out, *unused, ".rope.freqs_cos", ".rope.freqs_sin"),
        )  # fmt: skip


def _block_names() -> list[str]:
    return [name.replace("*", end) for name, _ in BLOCK for end in (("weight", "bias") if "*" in name else ("",))]


def _check(lane: LaneConfig, fusion: VisualExpertDetailConfig, config: ModelConfig) -> None:
    """Refuse what the layout cannot say.

    Raises:
        ConfigError: naming it.
    """
    tower, detail = lane.encoder, lane.detail
    if not isinstance(detail, Eva2Config) or finer(detail.width, detail.image_size_px) != detail:
        raise refuse_export("cogagent", "the finer tower is not EVA2-CLIP-L")
    if not isinstance(tower, Eva2Config) or not tower.positions_behind:
        raise refuse_export("cogagent", "the first tower has no positions behind its last block")
    text: Any = config.backbone
    if fusion.heads != text.arch.get("num_attention_heads") or fusion.norm_eps != text.arch.get("rms_norm_eps"):
        raise refuse_export("cogagent", "the attention to the finer tower has other heads or norms than the LLM")

"""mPLUG-Owl's own layout, which is transformers' in form and of no class in transformers.

Source: github.com/X-PLUG/mPLUG-Owl, mPLUG-Owl/mplug_owl/modeling_mplug_owl.py and
configuration_mplug_owl.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import WeightsError
from sensorium.encoders.clip import ClipConfig
from sensorium.input_projectors.abstractor import AbstractorConfig
from sensorium.interop.families.base import text_arch
from sensorium.interop.key_map import KeyMap, Rule, Split
from sensorium.interop.originals.base import Beside, Found
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.nn.pretrained import HARMLESS

# The repository's class defaults, which config.json may leave out.
VISION = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
          "num_attention_heads": 16, "image_size": 224, "patch_size": 14, "layer_norm_eps": 1e-6}  # fmt: skip
ABSTRACTOR = {"num_hidden_layers": 6, "num_attention_heads": 16, "intermediate_size": 4096,
              "layer_norm_eps": 1e-6}  # fmt: skip
ABSTRACTOR_NAMES = (
    ("norm1.*", "norm_z.*"),
    ("normk.*", "norm_x.*"),
    ("attention.query.*", "attention.q.*"),
    ("attention.key.*", "attention.k.*"),
    ("attention.value.*", "attention.v.*"),
    ("output.out_proj.*", "attention.out.*"),
    ("output.norm2.*", "norm_ff.*"),
    ("output.mlp.w1.*", "gate.*"),
    ("output.mlp.w3.*", "up.*"),
    ("output.mlp.ffn_ln.*", "norm_inner.*"),
    ("output.mlp.w2.*", "down.*"),
)


class MplugOwl:
    """CLIP with its last norm on all tokens, a visual abstractor, a causal language model."""

    def __init__(self, heads: int = VISION["num_attention_heads"]) -> None:
        self.heads = heads

    def fits(self, names: Collection[str]) -> bool:
        return any(name.startswith("abstractor.") for name in names)

    def canonical(self, name: str) -> str:
        return name

    def gather(self, found: Found, beside: Beside) -> Found:
        if found.config.get("model_type") != "mplug-owl":
            raise WeightsError(f"config.json of type {found.config.get('model_type')!r}",
                               expected="'mplug-owl'", where=str(found.path))  # fmt: skip
        self.heads = _sizes(found.config, "vision_config", VISION)["num_attention_heads"]
        tensors = {k: v for k, v in found.tensors.items() if not k.endswith(HARMLESS)}
        return replace(found, tensors=tensors)

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        vision = _sizes(found.config, "vision_config", VISION)
        look = _sizes(found.config, "visual_abstractor_config", ABSTRACTOR)
        text = {"model_type": "llama"} | dict(found.config.get("text_config") or {})
        encoder = ClipConfig(
            width=vision["hidden_size"], layers=vision["num_hidden_layers"], heads=self.heads,
            mlp_width=vision["intermediate_size"], image_size_px=vision["image_size"],
            patch_size_px=vision["patch_size"], norm_eps=vision["layer_norm_eps"],
            norm_tokens=True, feature="cls_patch", select_layer=None,
        )  # fmt: skip
        abstractor = AbstractorConfig(
            queries=found.config.get("num_query_tokens", 64), layers=look["num_hidden_layers"],
            heads=look["num_attention_heads"], mlp_width=look["intermediate_size"],
            norm_eps=look["layer_norm_eps"],
        )  # fmt: skip
        lane = LaneConfig(encoder=encoder, projector=abstractor, resolution=FixedResolution(fit="stretch"))
        return ModelConfig(lanes={"image": lane}, backbone=CausalLMConfig(arch=text_arch(text)),
                           template="mplug_owl")  # fmt: skip

    def folders(self, found: Found, beside: Beside) -> dict[str, Path]:
        return {}

    def key_map(self, names: Collection[str]) -> KeyMap:
        eye, tower = "vision_model.", "encoders.image.tower."
        layer, mine = f"{eye}encoder.layers.#.", f"{tower}encoder.layers.#."
        look = "abstractor.encoder.layers.#.crossattention."
        fused = f"{layer}self_attn.query_key_value."
        return KeyMap(
            rules=(
                Rule(f"{eye}embeddings.cls_token", f"{tower}embeddings.class_embedding", lead=2),
                Rule(f"{eye}embeddings.patch_embed.*", f"{tower}embeddings.patch_embedding.*"),
                Rule(f"{eye}embeddings.position_embedding",
                     f"{tower}embeddings.position_embedding.weight", lead=1),
                Rule(f"{eye}embeddings.pre_layernorm.*", f"{tower}pre_layrnorm.*"),
                Rule(f"{layer}self_attn.dense.*", f"{mine}self_attn.out_proj.*"),
                Rule(f"{layer}input_layernorm.*", f"{mine}layer_norm1.*"),
                Rule(f"{layer}post_attention_layernorm.*", f"{mine}layer_norm2.*"),
                Rule(f"{layer}mlp.*", f"{mine}mlp.*"),
                Rule(f"{eye}post_layernorm.*", f"{tower}post_layernorm.*"),
                Rule("query_tokens", "projectors.image.queries_QD", lead=1),
                *(Rule(look + theirs, f"projectors.image.layers.#.{ours}")
                  for theirs, ours in ABSTRACTOR_NAMES),
                Rule("abstractor.visual_fc.*", "projectors.image.out.*"),
                Rule("abstractor.vit_eos", "projectors.image.end_D", lead=2),
                Rule("language_model.*", "backbone.lm.*"),
            ),
            splits=tuple(
                Split(fused + kind, tuple(f"{mine}self_attn.{p}_proj.{kind}" for p in "qkv"), self.heads)
                for kind in ("weight", "bias")
            ),
        )  # fmt: skip


def _sizes(config: Mapping[str, Any], part: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    return dict(defaults) | dict(config.get(part) or {})

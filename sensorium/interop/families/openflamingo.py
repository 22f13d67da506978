"""OpenFlamingo (arXiv:2308.01390) as github.com/mlfoundations/open_flamingo names its tensors.

There is no config.json of a whole model there; ours holds what its factory is called with:
`{"model_type": "openflamingo", "cross_attn_every_n_layers": 4, "text_config": {...}}`, and
`vision_config` where the tower is not CLIP ViT-L/14. Released files hold only what was trained and
the embedding: `perceiver.*` and `lang_encoder.*.gated_cross_attn_layer.*`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import ConfigError
from sensorium.encoders.clip import ClipConfig
from sensorium.fusion.gated_cross_attention import GatedCrossAttentionConfig
from sensorium.input_projectors.perceiver import PerceiverConfig
from sensorium.interop.families.base import lm_arch, refuse_export, text_arch
from sensorium.interop.key_map import KeyMap, Rule, Split
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig

CLIP_L = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 224, "patch_size": 14,
}  # fmt: skip
LAYERS = {
    "mpt": "transformer.blocks",
    "gpt_neox": "gpt_neox.layers",
    "opt": "model.decoder.layers",
    "llama": "model.layers",
}
PERCEIVER = (
    ("0.norm_media.*", "norm_x.*"),
    ("0.norm_latents.*", "norm_z.*"),
    ("0.to_q.*", "attention.q.*"),
    ("0.to_out.*", "attention.out.*"),
    ("1.0.*", "norm_ff.*"),
    ("1.1.*", "up.*"),
    ("1.3.*", "down.*"),
)
GATED = (
    ("attn.norm.*", "attention_norm.*"),
    ("attn.to_q.*", "attention.q.*"),
    ("attn.to_out.*", "attention.out.*"),
    ("attn_gate", "attention_gate"),
    ("ff.0.*", "mlp_norm.*"),
    ("ff.1.*", "mlp_up.*"),
    ("ff.3.*", "mlp_down.*"),
    ("ff_gate", "mlp_gate_scale"),
)
KV, K, V = "to_kv.weight", "attention.k.weight", "attention.v.weight"


class OpenFlamingo:
    """CLIP's patches before its last norm, Flamingo's resampler and blocks, a language model."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        vision = CLIP_L | dict(config.get("vision_config") or {})
        every = config["cross_attn_every_n_layers"]
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
                    ),
                    projector=PerceiverConfig(project=False),
                    resolution=FixedResolution(fit="crop"),
                )
            },
            backbone=CausalLMConfig(arch=text_arch(config["text_config"])),
            fusion=GatedCrossAttentionConfig(every=every, first=every - 1),
            template="openflamingo",
            image_markers=("<image>",),
        )

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane, fusion = config.lanes.get("image"), config.fusion
        if lane is None or lane.projector != PerceiverConfig(project=False):
            raise refuse_export("openflamingo", "the projector is not Flamingo's resampler")
        if not isinstance(fusion, GatedCrossAttentionConfig) or fusion != (
            GatedCrossAttentionConfig(every=fusion.every, first=fusion.every - 1)
        ):
            raise refuse_export("openflamingo", "the fusion is not Flamingo's blocks")
        tower = lane.encoder
        if not isinstance(tower, ClipConfig):
            raise refuse_export("openflamingo", "the encoder is not CLIP")
        return {
            "model_type": "openflamingo",
            "cross_attn_every_n_layers": fusion.every,
            "text_config": lm_arch("openflamingo", config),
            "vision_config": {
                "hidden_size": tower.width,
                "num_hidden_layers": tower.layers,
                "num_attention_heads": tower.heads,
                "intermediate_size": tower.mlp_width,
                "image_size": tower.image_size_px,
                "patch_size": tower.patch_size_px,
            },
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        """Both the names under which the blocks hang in the decoder and those of their own list.

        Raises:
            ConfigError: a language model that OpenFlamingo was not made with.
        """
        kind = config["text_config"]["model_type"]
        if kind not in LAYERS:
            raise ConfigError(f"OpenFlamingo with a {kind} language model", expected=", ".join(LAYERS))
        path, every = LAYERS[kind], config["cross_attn_every_n_layers"]
        depth = CausalLMConfig(arch=dict(config["text_config"])).num_layers
        blocks, mine = "perceiver.layers.#.", "projectors.image.blocks.#."
        rules = [Rule(blocks + a, mine + b) for a, b in PERCEIVER]
        splits = [Split(f"perceiver.layers.{i}.0.{KV}", tuple(f"projectors.image.blocks.{i}.{x}" for x in (K, V)), 1)
                  for i in range(PerceiverConfig().depth)]  # fmt: skip
        aliases: list[tuple[str, str]] = []
        for block, layer in enumerate(range(every - 1, depth, every)):
            theirs, ours = f"lang_encoder.{path}.{layer}.gated_cross_attn_layer.", f"fusion.blocks.{block}."
            rules += [Rule(theirs + a, ours + b) for a, b in GATED]
            splits.append(Split(f"{theirs}attn.{KV}", (ours + K, ours + V), 1))
            aliases.append((f"lang_encoder.gated_cross_attn_layers.{layer}.", theirs))
        # What transformers called the output layer of a GPT-NeoX in its time.
        aliases.append(("lang_encoder.embed_out.", "lang_encoder.lm_head."))
        rules += [
            Rule("perceiver.latents", "projectors.image.latents_QD"),
            Rule("perceiver.norm.*", "projectors.image.norm.*"),
            Rule("vision_encoder.*", "encoders.image.tower.*"),
            Rule(f"lang_encoder.{path}.#.decoder_layer.*", f"backbone.lm.{path}.#.*"),
            Rule("lang_encoder.*", "backbone.lm.*"),
        ]
        return KeyMap(rules=tuple(rules), splits=tuple(splits), aliases=tuple(aliases))

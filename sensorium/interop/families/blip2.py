"""BLIP-2 with OPT, another decoder-only language model or T5, in transformers' layout; and its first stage, which
compares (`blip2_retrieval.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.query_tower import QueryTowerConfig
from sensorium.backbones.seq2seq_lm import Seq2SeqLMConfig
from sensorium.core.errors import ConfigError
from sensorium.encoders.blip2_vit import Blip2VitConfig
from sensorium.input_projectors.qformer import QFormerConfig
from sensorium.interop.families.base import lm_arch, refuse_export, text_arch
from sensorium.interop.families.blip2_retrieval import (
    RETRIEVAL,
    retrieval_rules,
    retrieval_to_ours,
    retrieval_to_theirs,
)
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.nn.query_former import FormerShape

VISION_DEFAULTS = {
    "hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39,
    "num_attention_heads": 16, "image_size": 224, "patch_size": 14,
}  # fmt: skip
QFORMER_DEFAULTS = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "cross_attention_frequency": 2, "layer_norm_eps": 1e-12,
}  # fmt: skip
ATTENTION = (
    ("attention.query.*", "attention.q.*"),
    ("attention.key.*", "attention.k.*"),
    ("attention.value.*", "attention.v.*"),
    ("output.dense.*", "attention.out.*"),
    ("output.LayerNorm.*", "norm.*"),
)


class Blip2:
    """EVA-CLIP-g, Q-Former, OPT, another causal language model or T5."""

    reads = False
    """Whether its Q-Former reads the question."""
    classes = ("Blip2ForConditionalGeneration", RETRIEVAL)
    """What is built, the first where a config names none."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        """The model config.

        Raises:
            ConfigError: the file is of another of the family's classes.
        """
        name = self._class(config)
        if name not in self.classes:
            raise ConfigError(f"weights of {name}", expected=" or ".join(self.classes), where="architectures")
        lane = self._lane(config)
        if name == RETRIEVAL:
            return retrieval_to_ours(config, lane)
        text = config["text_config"]
        reads_first = text.get("model_type") == "t5"
        return ModelConfig(
            lanes={"image": lane},
            backbone=(Seq2SeqLMConfig if reads_first else CausalLMConfig)(arch=text_arch(text)),
            template="seq2seq" if reads_first else "plain",
        )

    def _class(self, config: Mapping[str, Any]) -> str:
        return (config.get("architectures") or self.classes)[0]

    def _lane(self, config: Mapping[str, Any]) -> LaneConfig:
        vision = VISION_DEFAULTS | dict(config.get("vision_config") or {})
        former = QFORMER_DEFAULTS | dict(config.get("qformer_config") or {})
        return LaneConfig(
            encoder=Blip2VitConfig(
                width=vision["hidden_size"],
                layers=vision["num_hidden_layers"],
                heads=vision["num_attention_heads"],
                mlp_width=vision["intermediate_size"],
                image_size_px=vision["image_size"],
                patch_size_px=vision["patch_size"],
            ),
            projector=QFormerConfig(
                queries=config.get("num_query_tokens", 32),
                width=former["hidden_size"],
                layers=former["num_hidden_layers"],
                heads=former["num_attention_heads"],
                mlp_width=former["intermediate_size"],
                cross_every=former["cross_attention_frequency"],
                norm_eps=former["layer_norm_eps"],
            ),
            resolution=FixedResolution(fit="stretch"),
        )

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane = config.lanes.get("image")
        if lane is None or not isinstance(lane.encoder, Blip2VitConfig):
            raise refuse_export("blip-2", "the encoder is not BLIP-2's")
        if isinstance(config.backbone, QueryTowerConfig) and not self.reads:
            texts = retrieval_to_theirs(config.backbone, lane)
            sizes = _sizes(lane.encoder, config.backbone)
            return {**sizes, **texts, "qformer_config": sizes["qformer_config"] | texts["qformer_config"]}
        if not isinstance(lane.projector, QFormerConfig):
            raise refuse_export("blip-2", "the projector is not a Q-Former")
        if (lane.projector.words is not None) != self.reads:
            raise refuse_export("blip-2", "its Q-Former reads the question, which is InstructBLIP's (--to instructblip)")
        return {
            "architectures": ["Blip2ForConditionalGeneration"],
            # Features replace its embedding; the last row of the table is the least likely in a text.
            "image_token_index": config.backbone.vocab_size - 1,
            "text_config": lm_arch("blip-2", config),
            **_sizes(lane.encoder, lane.projector),
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        layer, mine = "qformer.encoder.layer.#.", "projectors.image.layers.#."
        rules = [
            Rule("vision_model.*", "encoders.image.tower.*"),
            Rule("query_tokens", "projectors.image.queries_QD", lead=1),
            Rule("qformer.layernorm.*", "projectors.image.norm.*"),
        ]
        for theirs, ours in ATTENTION:
            rules.append(Rule(f"{layer}attention.{theirs}", f"{mine}self_attention.{ours}"))
            rules.append(Rule(f"{layer}crossattention.{theirs}", f"{mine}cross_attention.{ours}"))
        rules += [
            Rule(f"{layer}intermediate_query.dense.*", f"{mine}up.*"),
            Rule(f"{layer}output_query.dense.*", f"{mine}down.*"),
            Rule(f"{layer}output_query.LayerNorm.*", f"{mine}norm.*"),
            Rule("language_projection.*", "projectors.image.out.*"),
            Rule("language_model.*", "backbone.lm.*"),
        ]
        found = tuple(rules)
        return KeyMap(rules=retrieval_rules(found) if self._class(config) == RETRIEVAL else found)


def _sizes(tower: Blip2VitConfig, former: FormerShape) -> dict[str, Any]:
    """What both classes' configs say of the encoder and the queries."""
    return {
        "model_type": "blip-2",
        "num_query_tokens": former.queries,
        "vision_config": {
            "hidden_size": tower.width,
            "num_hidden_layers": tower.layers,
            "num_attention_heads": tower.heads,
            "intermediate_size": tower.mlp_width,
            "image_size": tower.image_size_px,
            "patch_size": tower.patch_size_px,
        },
        "qformer_config": {
            "hidden_size": former.width,
            "num_hidden_layers": former.layers,
            "num_attention_heads": former.heads,
            "intermediate_size": former.mlp_width,
            "cross_attention_frequency": former.cross_every,
            "encoder_hidden_size": tower.width,
            "layer_norm_eps": former.norm_eps,
        },
    }

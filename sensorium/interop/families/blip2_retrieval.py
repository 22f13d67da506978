"""BLIP-2's first stage as transformers' `Blip2ForImageTextRetrieval`: a picture, texts, and whether they
belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.backbones.query_tower import QueryTowerConfig
from sensorium.fusion.query_match import QueryMatchConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.interop.families.base import refuse_export
from sensorium.interop.key_map import Rule
from sensorium.model.config import LaneConfig, ModelConfig

RETRIEVAL = "Blip2ForImageTextRetrieval"
READING_DEFAULTS = {"vocab_size": 30522, "max_position_embeddings": 512}
FORMER, LAYER = "backbone.lm.former.", "qformer.encoder.layer.#."
SHARED = ("queries", "width", "layers", "heads", "mlp_width", "cross_every", "norm_eps")
"""What a Q-Former is as a projector, too."""
HEADS = ("vision_projection", "text_projection", "itm_head")


def retrieval_to_ours(config: Mapping[str, Any], lane: LaneConfig) -> ModelConfig:
    """The model config.

    Args:
        lane: that of the model which writes, with the same encoder and queries.
    """
    reading = READING_DEFAULTS | dict(config.get("qformer_config") or {})
    shared = lane.projector.to_dict()
    words: dict[str, Any] = {name: shared[name] for name in SHARED}
    words |= {"words": reading["vocab_size"], "max_words": reading["max_position_embeddings"]}
    return ModelConfig(
        lanes={"image": lane.model_copy(update={"projector": LinearConfig(project=False)})},
        backbone=QueryTowerConfig(
            **words,
            d_picture=lane.encoder.out_dim,
            joint=config.get("image_text_hidden_size", 256),
        ),
        fusion=QueryMatchConfig(),
        template="pair",
    )


def retrieval_to_theirs(backbone: QueryTowerConfig, lane: LaneConfig) -> dict[str, Any]:
    """What a foreign config says of the texts, beside the sizes of both. It names no token for pictures: with
    one, the class takes as many ids as there are queries off the front of every text.

    Raises:
        ConfigError: the lane projects, or queries see some others only.
    """
    if backbone.looks_back:
        raise refuse_export("blip-2", "its queries look back only, as SEED's do")
    if getattr(lane.projector, "project", True):
        raise refuse_export("blip-2", "a projector lies between the encoder and the Q-Former")
    return {
        "architectures": [RETRIEVAL],
        "image_text_hidden_size": backbone.joint,
        "qformer_config": {
            "use_qformer_text_input": True,
            "vocab_size": backbone.vocab_size,
            "max_position_embeddings": backbone.max_positions,
        },
    }


def retrieval_rules(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The key map.

    Args:
        rules: those of the model which writes, whose Q-Former is a projector.
    """
    text = f"{FORMER}layers.#.text."
    return (
        *(
            Rule(rule.theirs, rule.ours.replace("projectors.image.", FORMER), lead=rule.lead)
            for rule in rules
            if not rule.theirs.startswith("language_")
        ),
        Rule("embeddings.word_embeddings.*", f"{FORMER}words.*"),
        Rule("embeddings.position_embeddings.*", f"{FORMER}places.*"),
        Rule(f"{LAYER}intermediate.dense.*", f"{text}up.*"),
        Rule(f"{LAYER}output.dense.*", f"{text}down.*"),
        Rule(f"{LAYER}output.LayerNorm.*", f"{text}norm.*"),
        *(Rule(f"{head}.*", f"backbone.lm.{head}.*") for head in HEADS),
    )

"""InstructBLIP with Vicuna or T5, in transformers' layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.input_projectors.qformer import QFormerConfig
from sensorium.interop.families.base import refuse_export
from sensorium.interop.families.blip2 import Blip2
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.model.config import ModelConfig

READING_DEFAULTS = {"vocab_size": 30522, "max_position_embeddings": 512}


class InstructBlip(Blip2):
    """BLIP-2 whose Q-Former reads the instruction."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        reading = READING_DEFAULTS | dict(config.get("qformer_config") or {})
        blip2 = super().to_ours(config)
        lane = blip2.lane("image")
        sizes = {"words": reading["vocab_size"], "max_words": reading["max_position_embeddings"]}
        former = lane.projector.model_copy(update=sizes)
        return blip2.model_copy(
            update={
                "lanes": {"image": lane.model_copy(update={"projector": former})},
                "template": "seq2seq" if blip2.backbone.one_answer else "bare",
            }
        )

    reads = True
    classes = ("InstructBlipForConditionalGeneration",)

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane = config.lanes.get("image")
        former = lane.projector if lane else None
        if not isinstance(former, QFormerConfig) or former.words is None:
            raise refuse_export("instructblip", "the projector is not a Q-Former that reads")
        theirs = super().to_theirs(config)
        theirs["qformer_config"] |= {
            "vocab_size": former.words, "max_position_embeddings": former.max_words,
        }  # fmt: skip
        return theirs | {
            "architectures": ["InstructBlipForConditionalGeneration"],
            "model_type": "instructblip",
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        layer, mine = "qformer.encoder.layer.#.", "projectors.image.layers.#.text."
        blip2 = super().key_map(config)
        # The norm in front has another name, because words pass through it as well.
        kept = [rule for rule in blip2.rules if rule.theirs != "qformer.layernorm.*"]
        return KeyMap(
            rules=(
                Rule("qformer.embeddings.word_embeddings.*", "projectors.image.words.*"),
                Rule("qformer.embeddings.position_embeddings.*", "projectors.image.places.*"),
                Rule("qformer.embeddings.layernorm.*", "projectors.image.norm.*"),
                Rule(f"{layer}intermediate.dense.*", f"{mine}up.*"),
                Rule(f"{layer}output.dense.*", f"{mine}down.*"),
                Rule(f"{layer}output.LayerNorm.*", f"{mine}norm.*"),
                *kept,
            )
        )

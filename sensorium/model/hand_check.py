"""Whether a model can read what it makes, where that is made piece by piece (`OutputProjectorConfig.feeds_back`)."""

from __future__ import annotations

from sensorium.core.errors import ConfigError
from sensorium.core.hands import MadeKind
from sensorium.fusion.splice import SpliceConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import ModelConfig


def fed_kinds(config: ModelConfig) -> list[MadeKind]:
    """The kinds of media that a model writes so."""
    return [kind for kind, hand in config.hands.items() if hand.feeds_back]


def check_fed_back(config: ModelConfig) -> None:
    """Can the model read what it makes?

    Raises:
        ConfigError: it has no lane for it, or lane, LLM or other hands do not go with it.
    """
    for kind in fed_kinds(config):
        where, hand = f"model.hands.{kind}", config.ways[kind]
        if kind not in config.lanes:
            raise ConfigError(f"{kind} is made embedding by embedding, and cannot be read", expected=f"a lane {kind!r}", where=where)
        lane = config.lanes[kind]
        tokens = lane.tile_grid().tokens
        others = [other for other in config.ways if other != kind]
        found = [
            (not isinstance(config.fusion, SpliceConfig), f"fusion {config.fusion.kind}", "splice"),
            (config.backbone.mrope, "an LLM with places in two dimensions", "one with plain positions"),
            (config.backbone.one_answer, "an encoder-decoder", "an LLM that reads and writes in one row"),
            (not isinstance(lane.resolution, FixedResolution), f"resolution {lane.resolution.kind}", "fixed"),
            (tokens != hand.reads, f"{tokens} tokens of a picture that is read", f"{hand.reads}, as the generator takes"),
            (hand.projector.feeds_back == "encoder" and not lane.projector.two_steps,
             f"space: encoder with projector {lane.projector.kind}", "one that pools and then maps: avg_pool without summary, norm and dropout"),
            (hand.projector.feeds_back == "encoder" and hand.generator.condition.width != lane.encoder.out_dim,
             f"a generator that takes vectors of {hand.generator.condition.width}", f"{lane.encoder.out_dim}, the encoder's width"),
            (bool(others), f"a projector in hands.{' and hands.'.join(others)}", f"{kind} alone: the states of others would not have read it"),
        ]  # fmt: skip
        for bad, what, expected in found:
            if bad:
                raise ConfigError(f"{what}, where {kind} is made embedding by embedding", expected=expected, where=where)

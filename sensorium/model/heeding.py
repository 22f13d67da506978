"""What of a `Making` makes a difference to a model: what its generators heed, or the way in which it writes pictures as tokens."""

from __future__ import annotations

from typing import cast

from sensorium.core.hands import Asked
from sensorium.model.config import ModelConfig
from sensorium.model.generators import all_generators


def heeded(config: ModelConfig) -> frozenset[Asked]:
    """What may be asked of how this model's media are made; anything else changes nothing."""
    found = {asked for generator in all_generators(config).values() for asked in generator.heeds}
    if config.picture_words is not None:
        own = config.picture_words.tokenizer.heeds
        found |= {"guidance", "size", "seed", *own}
        # Where guidance is what the tokenizer draws by (SEED), nothing leads the LLM away.
        found |= {"negative"} if config.picture_words.drawing.away == "text" and "guidance" not in own else set[Asked]()
    return cast(frozenset[Asked], frozenset(found))


def makers(config: ModelConfig) -> dict[str, str]:
    """What makes each kind of medium, by its name."""
    named = {way: generator.kind for way, generator in all_generators(config).items()}
    return named if config.picture_words is None else {**named, "image": config.picture_words.tokenizer.kind}

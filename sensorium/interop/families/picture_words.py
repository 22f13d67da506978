"""What families whose LLM has words for the codes of pictures share: the vocabulary map of their config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sensorium.core.picture_words import as_ranges, code_words
from sensorium.model.config import ModelConfig

IMAGE = "<image>"
"""The token that stands for a picture's codes until they are known."""


def word_ranges(config: Mapping[str, Any], find: Callable[[Mapping[str, int]], tuple[int, ...]]) -> tuple[tuple[int, int], ...]:
    """The runs of words that a foreign config's vocabulary map names, in the codes' order.

    Raises:
        ConfigError: it has no words, or some are missing.
    """
    return as_ranges(list(find(config.get("vocabulary_map") or {})))


def code_names(config: ModelConfig, name: Callable[[int], str]) -> dict[str, int]:
    """A vocabulary map of the codes alone.

    Args:
        name: what the family calls the word of a code.
    """
    told = config.picture_words
    assert told is not None, "a model without picture words"
    return {name(code): word for code, word in enumerate(code_words(told, config.backbone.vocab_size))}

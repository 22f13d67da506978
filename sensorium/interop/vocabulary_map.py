"""The vocabulary map that config.json of Chameleon and Emu3 carries: words of codes by the names that transformers looks for,
the token that stands for a picture's codes, and the one that closes a row of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.core.errors import ConfigError
from sensorium.interop.families.picture_words import IMAGE
from sensorium.model.config import ModelConfig
from sensorium.text.tokenizer import Tokenizer


def with_vocabulary_map(theirs: Mapping[str, Any], config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """A foreign config whose map is whole; one without a map as it is.

    A vocabulary without a token for pictures gets it, behind its last word but those of codes.

    Raises:
        ConfigError: the vocabulary has no row left for it.
    """
    told = config.picture_words
    if told is None or "vocabulary_map" not in theirs:
        return dict(theirs)
    words = dict(theirs["vocabulary_map"])
    tokenizer.add([IMAGE])
    image = tokenizer.special_id(IMAGE)
    if image in words.values() or image >= config.backbone.vocab_size:
        raise ConfigError(f"no word of the vocabulary is left for {IMAGE!r}", where="model.picture_words.words",
                          fix="add it to backbone.added_tokens, and raise vocab_size by one")  # fmt: skip
    closing = {} if told.row_end is None else {told.row_end: tokenizer.special_id(told.row_end)}
    return {**theirs, "vocabulary_map": {**words, IMAGE: image, **closing}}

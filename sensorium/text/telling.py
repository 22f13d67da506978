"""Words that say something about a picture, and how a tokenizer spells them inside a sentence."""

from __future__ import annotations

import re

from sensorium.text.tokenizer import Tokenizer

COMMON = frozenset(
    ["a", "an", "the", "of", "and", "with", "in", "on", "at", "to", "is", "are", "it", "its", "this", "that", "for", "by", "from", "as", "some", "be", "or"]
)
"""Words that say nothing about a picture."""


def telling_words(text: str) -> list[str]:
    """The telling words of a text in lower case, each once, in the order of their first places."""
    return list(dict.fromkeys(word for word in re.findall(r"[a-z]+", text.lower()) if word not in COMMON))


def spelt_inside(word: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """A word's tokens as it appears inside a sentence, from the first that is more than a space."""
    ids = tokenizer.encode(" " + word)
    start = next((k for k, i in enumerate(ids) if tokenizer.decode([i]).strip()), 0)
    return tuple(ids[start:])

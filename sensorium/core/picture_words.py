"""What must be known of pictures that an LLM reads and writes as tokens, each the word for a code of a picture tokenizer."""

from __future__ import annotations

from typing import Protocol

from sensorium.core.hands import Drawing
from sensorium.core.parts import ResolutionConfig
from sensorium.core.picture_tokenizer import PictureTokenizerConfig

CODES = "codes"
"""What batches call such pictures, among the kinds of their media."""


class PictureWordsShape(Protocol):
    """See `model.picture_words.PictureWordsConfig`."""

    @property
    def tokenizer(self) -> PictureTokenizerConfig: ...
    @property
    def resolution(self) -> ResolutionConfig: ...
    @property
    def interpolation(self) -> str: ...
    @property
    def words(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def begin(self) -> tuple[str, ...]: ...
    @property
    def row_end(self) -> str | None: ...
    @property
    def end(self) -> tuple[str, ...]: ...
    @property
    def template(self) -> str | None: ...
    @property
    def drawing(self) -> Drawing: ...
    @property
    def shared(self) -> bool:
        """Whether codes have words of the LLM's own vocabulary; then it reads pictures as words, too."""
        ...


def code_words(shape: PictureWordsShape, vocab_size: int) -> list[int]:
    """The word of each code, in the codes' order; where they have tables of their own, they are counted on behind the
    vocabulary."""
    ranges = shape.words or ((vocab_size, shape.tokenizer.codes),)
    return [word for first, count in ranges for word in range(first, first + count)]


def as_ranges(words: list[int]) -> tuple[tuple[int, int], ...]:
    """Words in the codes' order -> runs of (first, count)."""
    found: list[tuple[int, int]] = []
    for word in words:
        if found and word == sum(found[-1]):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((word, 1))
    return tuple(found)

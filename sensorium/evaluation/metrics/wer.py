"""Word error rate: how many words of what was said were heard wrongly, per word said."""

from __future__ import annotations

from collections.abc import Sequence


def word_errors(said: str, heard: str) -> int:
    """The fewest words replaced, left out and put in that turn one text into the other."""
    theirs = heard.split()
    row = list(range(len(theirs) + 1))
    for count, word in enumerate(said.split(), start=1):
        corner, row[0] = row[0], count
        for i, other in enumerate(theirs, start=1):
            corner, row[i] = row[i], min(row[i] + 1, row[i - 1] + 1, corner + (word != other))
    return row[-1]


def word_error_rate(said: Sequence[str], heard: Sequence[str]) -> float:
    """Errors of all texts per word of all that was said: not the mean of the texts' rates. Texts are compared as they are;
    normalise them before.

    Raises:
        ValueError: not one heard text for each, or nothing was said.
    """
    words = sum(len(text.split()) for text in said)
    if not words:
        raise ValueError("no words were said")
    return sum(word_errors(*pair) for pair in zip(said, heard, strict=True)) / words

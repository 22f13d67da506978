"""Reading short answers: normalise, match accepted names, parse yes and no."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from sensorium.data.picture_book.words import singular

ARTICLES = {"a", "an", "the"}
DIGITS = {"0": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five",
          "6": "six", "7": "seven", "8": "eight", "9": "nine", "10": "ten", "none": "zero",
          "no": "zero"}  # fmt: skip


def words(text: str) -> list[str]:
    """Lower-case words without punctuation and articles."""
    found = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())
    return [w for w in found if w not in ARTICLES]


def names(text: str, accepted: Sequence[str]) -> bool:
    """Whether an accepted name stands in the answer as whole words, in order, be they one or many:
    cherries are a right answer to a cherry."""
    said = [singular(w) for w in words(text)]
    for name in accepted:
        wanted = [singular(w) for w in words(name)]
        # "A" is a letter to choose, "+" a sign: nothing is left of them as words.
        if not wanted and name.strip() and text.strip(" .").casefold() == name.strip(" .").casefold():
            return True
        length = len(wanted)
        if wanted and any(said[i : i + length] == wanted for i in range(len(said) - length + 1)):
            return True
    return False


def yes_no(text: str) -> Literal["yes", "no"] | None:
    """`word_unique`: yes if the answer has the word yes and not no, and the other way
    round; anything else is unparsed."""
    said = set(words(text))
    has_yes, has_no = "yes" in said, "no" in said or "not" in said
    if has_yes == has_no:
        return None
    return "yes" if has_yes else "no"


def same_value(text: str, gold: str) -> bool:
    """Whether the answer's words contain the gold word; digits count as number words."""
    said = [DIGITS.get(w, w) if gold in DIGITS.values() else w for w in words(text)]
    return gold in said

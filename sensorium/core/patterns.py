"""Patterns over dotted names: which layers of a part are meant.

`layers.[4-7].self_attn` has pieces between its dots; a name fits when it has such pieces one after another,
anywhere. In a piece `*` stands for any characters, `[4-7]` for a whole number from 4 to 7, `[4-]` for 4 and
above, `[-3]` for 3 and below. The piece `**` stands for any pieces or none: `layers.[4-7].**.q_proj`.

These are not regular expressions, because names are full of dots, which would stand for anything there,
and because a range of numbers is unreadable in them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from sensorium.core.errors import ConfigError
from sensorium.core.naming import nearest

_RANGE = re.compile(r"\[(\d*)-(\d*)\]|\[(\d+)\]")
_SHOWN = 12


class Pattern:
    """One pattern, read once."""

    def __init__(self, text: str) -> None:
        """Read a pattern.

        Raises:
            ConfigError: a piece is empty, or a bracket holds no range.
        """
        self.text = text
        self._pieces = [_Piece(piece, text) for piece in text.split(".")]

    def fits(self, name: str) -> bool:
        """Whether the name has these pieces one after another."""
        pieces = name.split(".")
        return any(self._fits_from(0, pieces[start:]) for start in range(len(pieces)))

    def _fits_from(self, index: int, pieces: list[str]) -> bool:
        """Whether the pieces begin with those of the pattern from this one on."""
        if index == len(self._pieces):
            return True
        if self._pieces[index].text == "**":
            return any(self._fits_from(index + 1, pieces[skip:]) for skip in range(len(pieces) + 1))
        return bool(pieces) and self._pieces[index].fits(pieces[0]) and self._fits_from(index + 1, pieces[1:])

    def mend(self, names: Iterable[str]) -> str:
        """What to write in place of a pattern that fits none of the names."""
        names = list(names)
        known = {piece for name in names for piece in name.split(".")}
        for piece in self._pieces:
            if not any(piece.fits(one) for one in known):
                return _instead(piece.text, known)
        return f"a name here is {names[len(names) // 2]}" if names else "there are no names here"


class _Piece:
    """What stands between two dots of a pattern."""

    def __init__(self, text: str, whole: str) -> None:
        self.text = text
        self._ranges: list[tuple[int, int | None]] = []
        source = ""
        end = 0
        for found in _RANGE.finditer(text):
            source += _literal(text[end : found.start()]) + r"(\d+)"
            end = found.end()
            low, high, only = found.groups()
            self._ranges.append((int(only), int(only)) if only else (int(low or 0), int(high) if high else None))
        rest = text[end:]
        if not text or "[" in _RANGE.sub("", text) or "]" in _RANGE.sub("", text):
            raise ConfigError(f"pattern {whole!r} with the piece {text!r}",
                              expected="pieces between dots, such as layers.[4-7].self_attn or *norm*")  # fmt: skip
        self._regex = re.compile(source + _literal(rest))

    def fits(self, piece: str) -> bool:
        found = self._regex.fullmatch(piece)
        return found is not None and all(
            low <= int(number) and (high is None or int(number) <= high)
            for number, (low, high) in zip(found.groups(), self._ranges, strict=True)
        )


def _literal(text: str) -> str:
    return ".*".join(re.escape(part) for part in text.split("*"))


def _instead(piece: str, known: Collection[str]) -> str:
    """A remedy for a piece that no name has."""
    numbers = sorted(int(one) for one in known if one.isdigit())
    if _RANGE.fullmatch(piece) or piece.isdigit():
        return f"numbers go from {numbers[0]} to {numbers[-1]}" if numbers else "no layers are numbered here"
    words = sorted(one for one in known if not one.isdigit())
    near = nearest(piece, words)
    listing = ", ".join(words[:_SHOWN]) + (", ..." if len(words) > _SHOWN else "")
    return f"did you mean {near!r}? Known: {listing}" if near else f"known: {listing}"


def fitting(patterns: Iterable[str], names: Collection[str], where: str) -> set[str]:
    """The names that fit one of the patterns at least.

    Raises:
        ConfigError: a pattern cannot be read, or fits none of the names.
    """
    found: set[str] = set()
    for text in patterns:
        pattern = Pattern(text)
        fits = {name for name in names if pattern.fits(name)}
        if not fits:
            raise ConfigError(f"pattern {text!r} fits no name", where=where, fix=pattern.mend(names))
        found |= fits
    return found

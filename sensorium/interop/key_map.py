"""Key maps as data: foreign tensor names <-> ours, there and back without a change.

A rule pairs two patterns; `#` stands for a number, `*` for the rest of a name. `lead` is
how many leading dimensions of size 1 the foreign tensor has and ours lacks. `Join` pairs
two foreign tensors with one of ours, rows of the first before rows of the second; `Split` one foreign
tensor with several of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sensorium.core.errors import WeightsError


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a key map."""

    theirs: str
    ours: str
    lead: int = 0


@dataclass(frozen=True, slots=True)
class Join:
    """Two foreign tensors whose rows make one of ours; `rows` is the first one's count."""

    first: str
    second: str
    ours: str
    rows: int
    lead: int = 0


@dataclass(frozen=True, slots=True)
class Split:
    """One foreign tensor whose rows, in as many equal parts, are several of ours."""

    theirs: str
    ours: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyMap:
    """A whole map, and names that older files used for the same tensors."""

    rules: Sequence[Rule]
    joins: Sequence[Join] = ()
    aliases: Sequence[tuple[str, str]] = ()
    """(old prefix, new prefix) applied to foreign names before the rules."""
    left_out: Sequence[str] = ()
    """Ends of the names of foreign tensors that hold no weights, such as counted positions."""
    splits: Sequence[Split] = ()

    def to_ours(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Foreign tensors under our names.

        Raises:
            WeightsError: a name that no rule covers.
        """
        renamed = {self.canonical(name): value for name, value in theirs.items()
                   if not name.endswith(tuple(self.left_out))}  # fmt: skip
        ours: dict[str, Tensor] = {}
        for join in self.joins:
            if join.second in renamed:
                parts = (renamed.pop(join.first), renamed.pop(join.second))
                ours[join.ours] = torch.cat([p.reshape(p.shape[join.lead :]) for p in parts])
        for name, split, marks in _splits(self.splits, renamed, lambda s: s.theirs):
            names = [_filled(pattern, marks) for pattern in split.ours]
            for new, part in zip(names, renamed.pop(name).chunk(len(names)), strict=True):
                ours[new] = part.clone()
        for name, value in renamed.items():
            rule, new = _match(name, [(r, r.theirs, r.ours) for r in self.rules])
            ours[new] = value.reshape(value.shape[rule.lead :]) if rule.lead else value
        return ours

    def to_theirs(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors under the foreign names.

        Raises:
            WeightsError: a name that no rule covers.
        """
        theirs: dict[str, Tensor] = {}
        left = dict(ours)
        for join in self.joins:
            if join.ours in left and len(left[join.ours]) > join.rows:
                whole = left.pop(join.ours)
                for new, part in ((join.first, whole[: join.rows]), (join.second, whole[join.rows :])):
                    theirs[new] = part.reshape((1,) * join.lead + tuple(part.shape)).clone()
        for _, split, marks in _splits(self.splits, left, lambda s: s.ours[0]):
            parts = [left.pop(_filled(pattern, marks)) for pattern in split.ours]
            theirs[_filled(split.theirs, marks)] = torch.cat(parts)
        for name, value in left.items():
            rule, new = _match(name, [(r, r.ours, r.theirs) for r in self.rules])
            theirs[new] = value.reshape((1,) * rule.lead + tuple(value.shape))
        return theirs

    def canonical(self, name: str) -> str:
        """The name that `to_theirs` gives a foreign tensor, whatever an older file calls it."""
        for old, new in self.aliases:
            if name.startswith(old):
                return new + name[len(old) :]
        return name


def _splits(
    splits: Sequence[Split], tensors: Mapping[str, Tensor], pattern: Callable[[Split], str]
) -> list[tuple[str, Split, tuple[str, ...]]]:
    """The tensors that a split is about: name, split, and what its marks stand for."""
    found = [(name, split, _marks(pattern(split), name)) for name in tensors for split in splits]
    return [(name, split, marks) for name, split, marks in found if marks is not None]


def _marks(pattern: str, name: str) -> tuple[str, ...] | None:
    """What the marks of a pattern stand for in a name; None where it does not fit."""
    pattern = re.escape(pattern).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)")
    found = re.fullmatch(pattern, name)
    return found.groups() if found else None


def _filled(pattern: str, marks: Sequence[str]) -> str:
    """A pattern with its marks replaced, in order."""
    for text in marks:
        mark = re.search(r"[#*]", pattern)
        assert mark is not None, f"pattern {pattern} loses part of a name"
        pattern = pattern[: mark.start()] + text + pattern[mark.end() :]
    return pattern


def _match(name: str, options: Sequence[tuple[Rule, str, str]]) -> tuple[Rule, str]:
    for rule, source, target in options:
        marks = _marks(source, name)
        if marks is not None:
            return rule, _filled(target, marks)
    raise WeightsError(
        f"no rule for tensor {name!r}", fix="the checkpoint is of another architecture or version"
    )

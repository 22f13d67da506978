"""Key maps as data: foreign tensor names <-> ours, there and back without a change.

A rule pairs two patterns; `#` stands for a number, `*` for the rest of a name. `lead` is
how many leading dimensions of size 1 the foreign tensor has and ours lacks; `turned`, that ours
is the other's transpose. `Join` pairs two foreign tensors with one of ours, rows of the first before
rows of the second; `Split` pairs one foreign tensor with several of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Join:
    """Two foreign tensors whose rows make one of ours; `rows` is the first one's count."""

    first: str
    second: str
    ours: str
    rows: int


@dataclass(frozen=True, slots=True)
class Split:
    """One foreign tensor whose rows are those of several of ours: query, key and value in one.

    With `heads` the rows of a head stand together, `q k v` of the first before `q k v` of the second.
    """

    theirs: str
    ours: tuple[str, ...]
    heads: int = 1

    def parts(self, whole: Tensor) -> list[Tensor]:
        """Ours, in order."""
        rows = whole.unflatten(0, (self.heads, len(self.ours), -1))
        return [rows[:, i].flatten(0, 1).contiguous() for i in range(len(self.ours))]

    def whole(self, parts: Sequence[Tensor]) -> Tensor:
        """Theirs."""
        rows = torch.stack([part.unflatten(0, (self.heads, -1)) for part in parts], dim=1)
        return rows.flatten(0, 2)


@dataclass(frozen=True, slots=True)
class KeyMap:
    """A whole map, and names that older files used for the same tensors."""

    rules: Sequence[Rule]
    joins: Sequence[Join] = ()
    splits: Sequence[Split] = ()
    aliases: Sequence[tuple[str, str]] = ()
    """(old prefix, new prefix) applied to foreign names before the rules."""
    left_out: Sequence[str] = ()
    """Ends of the names of foreign tensors that hold no weights, such as counted positions."""

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
                ours[join.ours] = torch.cat(parts)
        for name, value in renamed.items():
            split = _split_of(name, [(s, (s.theirs,)) for s in self.splits])
            if split is not None:
                names = [_filled(pattern, split[1]) for pattern in split[0].ours]
                ours |= zip(names, split[0].parts(value), strict=True)
                continue
            rule, new = _match(name, [(r, r.theirs, r.ours) for r in self.rules])
            value = value.reshape(value.shape[rule.lead :]) if rule.lead else value
            ours[new] = value.T.contiguous() if rule.turned else value
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
                theirs[join.first] = whole[: join.rows].clone()
                theirs[join.second] = whole[join.rows :].clone()
        for name, value in left.items():
            split = _split_of(name, [(s, s.ours) for s in self.splits])
            if split is not None:
                # All parts are joined when the first one comes along.
                names = [_filled(pattern, split[1]) for pattern in split[0].ours]
                if name == names[0]:
                    theirs[_filled(split[0].theirs, split[1])] = split[0].whole([left[n] for n in names])
                continue
            rule, new = _match(name, [(r, r.ours, r.theirs) for r in self.rules])
            value = value.T if rule.turned else value
            theirs[new] = value.reshape((1,) * rule.lead + tuple(value.shape))
        return theirs

    def canonical(self, name: str) -> str:
        """The name that `to_theirs` gives a foreign tensor, whatever an older file calls it."""
        for old, new in self.aliases:
            if name.startswith(old):
                return new + name[len(old) :]
        return name


def _groups(pattern: str, name: str) -> tuple[str, ...] | None:
    """What `#` and `*` of a pattern stand for in a name; None: it does not fit."""
    found = re.fullmatch(re.escape(pattern).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)"), name)
    return found.groups() if found else None


def _filled(pattern: str, groups: Sequence[str]) -> str:
    """The pattern with `#` and `*` filled in, in order."""
    for group in groups:
        mark = re.search(r"[#*]", pattern)
        assert mark is not None, f"pattern {pattern!r} loses part of a name"
        pattern = pattern[: mark.start()] + group + pattern[mark.end() :]
    return pattern


def _split_of(
    name: str, options: Sequence[tuple[Split, tuple[str, ...]]]
) -> tuple[Split, tuple[str, ...]] | None:
    """The split that a name is part of, and what its patterns stand for."""
    for split, patterns in options:
        for pattern in patterns:
            groups = _groups(pattern, name)
            if groups is not None:
                return split, groups
    return None


def _match(name: str, options: Sequence[tuple[Rule, str, str]]) -> tuple[Rule, str]:
    for rule, source, target in options:
        groups = _groups(source, name)
        if groups is not None:
            return rule, _filled(target, groups)
    raise WeightsError(
        f"no rule for tensor {name!r}", fix="the checkpoint is of another architecture or version"
    )

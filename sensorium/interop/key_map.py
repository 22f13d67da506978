"""Key maps as data: foreign tensor names <-> ours, there and back without a change.

A rule pairs two patterns; `#` stands for a number, `*` for the rest of a name. `lead` is
how many leading dimensions of size 1 the foreign tensor has and ours lacks. `Join` pairs
two foreign tensors with one of ours, rows of the first before rows of the second; `Split` one
foreign tensor with two of ours, which have half of its rows each.
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


@dataclass(frozen=True, slots=True)
class Join:
    """Two foreign tensors whose rows make one of ours; `rows` is the first one's count."""

    first: str
    second: str
    ours: str
    rows: int


@dataclass(frozen=True, slots=True)
class Split:
    """One foreign tensor whose rows make two of ours of equal size: keys and values."""

    theirs: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class KeyMap:
    """A whole map, and names that older files used for the same tensors."""

    rules: Sequence[Rule]
    joins: Sequence[Join] = ()
    splits: Sequence[Split] = ()
    aliases: Sequence[tuple[str, str]] = ()
    """(old prefix, new prefix) applied to foreign names before the rules."""

    def to_ours(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Foreign tensors under our names.

        Raises:
            WeightsError: a name that no rule covers.
        """
        renamed = {self.canonical(name): value for name, value in theirs.items()}
        ours: dict[str, Tensor] = {}
        for join in self.joins:
            if join.second in renamed:
                parts = (renamed.pop(join.first), renamed.pop(join.second))
                ours[join.ours] = torch.cat(parts)
        for split in self.splits:
            if split.theirs in renamed:
                first, second = renamed.pop(split.theirs).chunk(2)
                ours |= {split.first: first.contiguous(), split.second: second.contiguous()}
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
                theirs[join.first] = whole[: join.rows].clone()
                theirs[join.second] = whole[join.rows :].clone()
        for split in self.splits:
            if split.first in left:
                theirs[split.theirs] = torch.cat([left.pop(split.first), left.pop(split.second)])
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


def _match(name: str, options: Sequence[tuple[Rule, str, str]]) -> tuple[Rule, str]:
    for rule, source, target in options:
        pattern = re.escape(source).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)")
        found = re.fullmatch(pattern, name)
        if found:
            for group in found.groups():
                mark = re.search(r"[#*]", target)
                assert mark is not None, f"rule {rule} loses part of a name"
                target = target[: mark.start()] + group + target[mark.end() :]
            return rule, target
    raise WeightsError(
        f"no rule for tensor {name!r}", fix="the checkpoint is of another architecture or version"
    )

"""Key maps as data: foreign tensor names <-> ours, there and back without a change.

A rule pairs two patterns; `#` stands for a number, `*` for the rest of a name. `lead` and `trail` are
how many leading and trailing dimensions of size 1 the foreign tensor has and ours lacks; `turned`, that
ours is the other's transpose; `pairs`, in how many heads its rows lie in rotary pairs, as in Meta's LLaMA, and
ours in halves. `Join` pairs two foreign tensors with one of ours, rows of the first before rows of the second; `Gap` the
same with zeros between; `Split` one foreign tensor with several of ours, head by head; `Tail` a foreign tensor with the last
rows of one of ours, whose other rows come from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
    trail: int = 0
    pairs: int = 0

    def to_ours(self, value: Tensor) -> Tensor:
        """The foreign tensor in our form.

        Raises:
            WeightsError: what is to go is no dimension of size 1.
        """
        if self.lead or self.trail:
            inner = value.shape[self.lead : value.ndim - self.trail]
            if inner.numel() != value.numel():
                raise WeightsError(f"{self.theirs} has shape {tuple(value.shape)}",
                                   expected=f"{self.lead} dimensions of size 1 in front, {self.trail} behind")  # fmt: skip
            value = value.reshape(inner)
        if self.pairs:
            value = value.unflatten(0, (self.pairs, -1, 2)).transpose(1, 2).flatten(0, 2)
        return value.T.contiguous() if self.turned else value

    def to_theirs(self, value: Tensor) -> Tensor:
        """Our tensor in the foreign form."""
        value = value.T.contiguous() if self.turned else value
        if self.pairs:
            value = value.unflatten(0, (self.pairs, 2, -1)).transpose(1, 2).flatten(0, 2)
        return value.reshape((1,) * self.lead + tuple(value.shape) + (1,) * self.trail)


@dataclass(frozen=True, slots=True)
class Join:
    """Two foreign tensors whose rows make one of ours; `rows` is the first one's count."""

    first: str
    second: str
    ours: str
    rows: int
    lead: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """Two foreign vectors, one of ours: as many zeros as each has lie between them. Attention
    with a bias for queries and values, none for keys."""

    first: str
    second: str
    ours: str


@dataclass(frozen=True, slots=True)
class Split:
    """One foreign tensor whose rows belong to several of ours: for each head, its rows of the
    first, then of the second, and so on."""

    theirs: str
    ours: tuple[str, ...]
    heads: int = 1


@dataclass(frozen=True, slots=True)
class Tail:
    """A foreign tensor that is the last `rows` rows of one of ours: words added to a language model that lies beside."""

    theirs: str
    ours: str
    rows: int


@dataclass(frozen=True, slots=True)
class KeyMap:
    """A whole map, and names that older files used for the same tensors."""

    rules: Sequence[Rule]
    joins: Sequence[Join] = ()
    gaps: Sequence[Gap] = ()
    splits: Sequence[Split] = ()
    tails: Sequence[Tail] = ()
    aliases: Sequence[tuple[str, str]] = ()
    """(old prefix, new prefix) applied to foreign names before the rules."""
    left_out: Sequence[str] = ()
    """Ends of the names of foreign tensors that hold no weights, such as counted positions."""

    def behind(self, theirs: str, ours: str) -> KeyMap:
        """The same map where prefixes stand before both sides' names; without the aliases, which are of whole files."""
        rules = tuple(replace(r, theirs=theirs + r.theirs, ours=ours + r.ours) for r in self.rules)
        joins = tuple(replace(j, first=theirs + j.first, second=theirs + j.second, ours=ours + j.ours) for j in self.joins)
        gaps = tuple(replace(g, first=theirs + g.first, second=theirs + g.second, ours=ours + g.ours) for g in self.gaps)
        splits = tuple(replace(s, theirs=theirs + s.theirs, ours=tuple(ours + one for one in s.ours)) for s in self.splits)
        return KeyMap(rules, joins, gaps, splits, left_out=self.left_out)

    def to_ours(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Foreign tensors under our names.

        Raises:
            WeightsError: a name that no rule covers.
        """
        renamed = {self.canonical(name): value for name, value in theirs.items()
                   if not name.endswith(tuple(self.left_out))}  # fmt: skip
        ours = {tail.ours: renamed.pop(tail.theirs) for tail in self.tails if tail.theirs in renamed}
        for join in self.joins:
            if join.second in renamed:
                parts = (renamed.pop(join.first), renamed.pop(join.second))
                ours[join.ours] = torch.cat([part.reshape(part.shape[join.lead :]) for part in parts])
        for gap in self.gaps:
            for name in [n for n in renamed if _filled(gap.first, n, gap.second) in renamed]:
                first = renamed.pop(name)
                second = renamed.pop(str(_filled(gap.first, name, gap.second)))
                joined = torch.cat((first, torch.zeros_like(first), second))
                ours[str(_filled(gap.first, name, gap.ours))] = joined
        for split in self.splits:
            for name in [n for n in renamed if _filled(split.theirs, n, split.theirs)]:
                parts = _unwoven(renamed.pop(name), split)
                ours |= {str(_filled(split.theirs, name, o)): part
                         for o, part in zip(split.ours, parts, strict=True)}  # fmt: skip
        for name, value in renamed.items():
            rule, new = _match(name, [(r, r.theirs, r.ours) for r in self.rules])
            ours[new] = rule.to_ours(value)
        return ours

    def to_theirs(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors under the foreign names.

        Raises:
            WeightsError: a name that no rule covers, or values that have no place there.
        """
        theirs: dict[str, Tensor] = {}
        left = dict(ours)
        for tail in self.tails:
            if tail.ours in left:
                theirs[tail.theirs] = self.place(tail.ours, left.pop(tail.ours)).clone()
        for join in self.joins:
            if join.ours in left and len(left[join.ours]) > join.rows:
                whole = left.pop(join.ours)
                for new, part in ((join.first, whole[: join.rows]), (join.second, whole[join.rows :])):
                    theirs[new] = part.reshape((1,) * join.lead + tuple(part.shape)).clone()
        for gap in self.gaps:
            for name in [n for n in left if _filled(gap.ours, n, gap.ours)]:
                first, between, second = left.pop(name).chunk(3)
                if between.any():
                    raise WeightsError(f"{name} has values for keys", expected="zeros: the layout has no place for them")
                theirs[str(_filled(gap.ours, name, gap.first))] = first.clone()
                theirs[str(_filled(gap.ours, name, gap.second))] = second.clone()
        for split in self.splits:
            lead = split.ours[0]
            for name in [n for n in left if _filled(lead, n, lead)]:
                parts = [left.pop(str(_filled(lead, name, o))) for o in split.ours]
                theirs[str(_filled(lead, name, split.theirs))] = _woven(parts, split)
        for name, value in left.items():
            rule, new = _match(name, [(r, r.ours, r.theirs) for r in self.rules])
            theirs[new] = rule.to_theirs(value)
        return theirs

    def place(self, ours: str, value: Tensor) -> Tensor:
        """The part of one of our tensors that the layout holds."""
        rows = next((tail.rows for tail in self.tails if tail.ours == ours), None)
        return value if rows is None else value[len(value) - rows :]

    def their_name(self, ours: str) -> str:
        """What the layout calls one of our tensors, or the first of those that make it up; our own
        name where it has no word for it."""
        pairs = [(r.ours, r.theirs) for r in self.rules]
        pairs += [(gap.ours, gap.first) for gap in self.gaps]
        pairs += [(mine, split.theirs) for split in self.splits for mine in split.ours]
        pairs += [(join.ours, join.first) for join in self.joins]
        pairs += [(tail.ours, tail.theirs) for tail in self.tails]
        named = (_filled(mine, ours, theirs) for mine, theirs in pairs)
        return next((name for name in named if name), ours)

    def canonical(self, name: str) -> str:
        """The name that `to_theirs` gives a foreign tensor, whatever an older file calls it."""
        for old, new in self.aliases:
            if name.startswith(old):
                return new + name[len(old) :]
        return name


def _filled(pattern: str, name: str, target: str) -> str | None:
    """`target` with the numbers and rest that `pattern` finds in `name`; None: it does not fit."""
    escaped = re.escape(pattern).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)")
    found = re.fullmatch(escaped, name)
    if found is None:
        return None
    for group in found.groups():
        mark = re.search(r"[#*]", target)
        assert mark is not None, f"{pattern!r} -> {target!r} loses part of a name"
        target = target[: mark.start()] + group + target[mark.end() :]
    return target


def _match(name: str, options: Sequence[tuple[Rule, str, str]]) -> tuple[Rule, str]:
    for rule, source, target in options:
        filled = _filled(source, name, target)
        if filled is not None:
            return rule, filled
    raise WeightsError(
        f"no rule for tensor {name!r}", fix="the checkpoint is of another architecture or version"
    )


def _unwoven(whole: Tensor, split: Split) -> list[Tensor]:
    heads = whole.unflatten(0, (split.heads, len(split.ours), -1))
    return [part.flatten(0, 1).contiguous() for part in heads.unbind(1)]


def _woven(parts: Sequence[Tensor], split: Split) -> Tensor:
    return torch.stack([p.unflatten(0, (split.heads, -1)) for p in parts], dim=1).flatten(0, 2)

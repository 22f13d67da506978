"""Did-you-mean: the nearest known name to an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to `name`, or None where nothing is close."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    if close:
        return close[0]
    lowered = {o.lower(): o for o in options}
    return lowered.get(name.lower())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy sentence for an unknown name: the nearest one and the full list."""
    options = sorted(known)
    near = nearest(name, options)
    listing = ", ".join(options) if options else "nothing"
    return f"did you mean {near!r}? Known: {listing}" if near else f"known: {listing}"


def of_detail(kind: str) -> str:
    """What the second encoder of a lane, and its features, are called."""
    return f"{kind}_detail"


def of_other(kind: str) -> str:
    """What the second way to make a medium is called."""
    return f"{kind}_other"


def of_choice(kind: str) -> str:
    """What decides between both ways is called."""
    return f"{kind}_choice"

"""What differs between two recipes, by dotted keys as overrides write them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from sensorium.core.config import as_mapping
from sensorium.training.config import Recipe


class Absent:
    """The value of a key that one of the two does not have."""

    def __repr__(self) -> str:
        return "-"


ABSENT = Absent()


@dataclass(frozen=True, slots=True)
class Difference:
    """One key and its value in either recipe."""

    key: str
    first: Any
    second: Any


def differences(first: Recipe, second: Recipe) -> list[Difference]:
    """The keys whose values are not the same, in the order of the first recipe."""
    one, two = (dict(_leaves(recipe.to_dict(), "")) for recipe in (first, second))
    return [
        Difference(key, one.get(key, ABSENT), two.get(key, ABSENT))
        for key in dict.fromkeys([*one, *two])
        if one.get(key, ABSENT) != two.get(key, ABSENT)
    ]


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every plain value of a tree under its dotted key; list items by name, else by position."""
    fields = as_mapping(node)
    if fields is None and isinstance(node, list) and any(as_mapping(i) for i in cast(list[Any], node)):
        items = cast(list[dict[str, Any]], node)
        fields = {str(item.get("name", i)): item for i, item in enumerate(items)}
    if not fields:
        yield key, node
        return
    for name, value in fields.items():
        yield from _leaves(value, f"{key}.{name}" if key else str(name))

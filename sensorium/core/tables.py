"""Lazy name tables: one readable mapping from a name to `module:attribute`.

Heavy modules load when a name is first used; a typo gets the nearest name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from sensorium.core.errors import ConfigError
from sensorium.core.naming import did_you_mean


class NameTable(Mapping[str, str]):
    """An immutable table of names whose targets are imported on demand."""

    def __init__(self, noun: str, targets: Mapping[str, str]) -> None:
        for name, target in targets.items():
            if target.count(":") != 1:
                raise ValueError(f"{noun} {name!r}: target must be 'module:attribute', is {target!r}")
        self.noun = noun
        self._targets = dict(targets)

    def __getitem__(self, name: str) -> str:
        return self._targets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def find(self, name: str) -> Any:
        """Import and return the object behind `name`.

        Raises:
            ConfigError: the name is unknown; the message carries the nearest one.
        """
        if name not in self._targets:
            raise ConfigError(
                f"unknown {self.noun} {name!r}", fix=did_you_mean(name, self._targets)
            )
        module, _, attribute = self._targets[name].partition(":")
        return getattr(import_module(module), attribute)

"""What makes media, built when something is made for the first time.

A generator is no part of the model that learns, is counted or saved: its weights are its source's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sensorium.core.errors import ConfigError
from sensorium.core.hands import Generator, MadeKind
from sensorium.core.weights import WeightSource

if TYPE_CHECKING:
    from sensorium.model.config import ModelConfig

Locate = Callable[[tuple[WeightSource, ...]], Path | None]


class Generators:
    """The generators of one model, by the kind of what they make."""

    def __init__(self, config: ModelConfig, folders: Mapping[str, Path]) -> None:
        self._config = config
        self._folders = folders
        self._built: dict[str, Generator] = {}
        self.locate: Locate | None = None
        """Finds the folder of a source of weights; who knows of hubs and wheels sets it."""

    def __getitem__(self, kind: MadeKind) -> Generator:
        """The generator of a kind of medium.

        Raises:
            ConfigError: the model makes none, or what it needs is not installed.
            WeightsError: its weights cannot be had.
        """
        if kind not in self._config.hands:
            known = ", ".join(sorted(self._config.hands)) or "text only"
            raise ConfigError(f"this model does not make {kind}", expected=known)
        if kind not in self._built:
            config = self._config.hands[kind].generator
            folder = self._folders.get(f"generators.{kind}")
            if folder is None and config.weights and self.locate is not None:
                folder = self.locate(config.weights)
            self._built[kind] = config.build(folder)
        return self._built[kind]

    def put(self, kind: MadeKind, generator: Generator) -> None:
        """Use this one: an index that was just built, say."""
        self._built[kind] = generator

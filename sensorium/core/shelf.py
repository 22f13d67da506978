"""What the Processor and the model ask of a feature store; `features` has the one there is."""

from __future__ import annotations

from typing import Protocol

from sensorium.core.batch import Features, Kept, MediaBatch


class Shelf(Protocol):
    """Features of pictures by key, for one state of a model's encoders."""

    def holds(self, kind: str) -> bool:
        """Whether features of this kind of media are kept at all."""
        ...

    def find(self, kind: str, key: bytes) -> Kept | None:
        """The entry of a key, its features on the CPU; None where there is none, or a damaged one."""
        ...

    def keep(self, kind: str, media: MediaBatch, features: Features) -> Features:
        """Hand over what the encoder made of all pictures of a batch, or of those that were not found.

        Args:
            media: with an entry of `kept` for each of the pictures.

        Returns:
            The features to go on with: these, rounded where the store rounds.
        """
        ...

    def follow(self) -> None:
        """In a copy of the process that keeps: only find from now on."""
        ...

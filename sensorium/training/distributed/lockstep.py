"""Passes that all processes make together, because each of them gathers the layers of a divided model.

All gather the same layers in the same order. So they make as many passes over a batch, and in each of them all run the
encoders and send gradients there, or none does. A process whose rows hold nothing for a lane is lent a row with a blank picture, from
which nothing is learned; one with fewer passes makes one over a row of padding. What is lent adds nothing to any sum.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
import torch.distributed as dist

from sensorium.core.batch import Batch
from sensorium.core.sample import Message, Part, Sample
from sensorium.data.loader import LoadedBatch, Loader
from sensorium.model.device import to_device
from sensorium.processing.collate import collate
from sensorium.processing.join import with_row
from sensorium.training.distributed.ranks import Ranks, alive, raise_one

BLANK_PX = 32
Drawn = tuple[LoadedBatch, list[Batch]]
"""A batch, and the passes over it."""


class OwnPace:
    """Every process makes the passes that its own rows ask for."""

    inside = False
    """Whether others may be waiting within a pass, where they hear of no error but by this process's end."""

    def drawn(self, draw: Callable[[], Drawn]) -> Drawn:
        """Draw a batch; where one process fails to, all do."""
        return draw()

    @contextmanager
    def passing(self) -> Generator[None]:
        """The block in which the passes are made."""
        yield


class Lockstep(OwnPace):
    """All processes make the same passes."""

    def __init__(self, ranks: Ranks, loader: Loader, device: torch.device, takes: Mapping[str, str]) -> None:
        """Take the loader of the stage.

        Args:
            takes: kind of media -> the lane that it goes through.
        """
        self._ranks = ranks
        pad_id = loader.processor.tokenizer.pad_id
        self._nothing = to_device(collate([[loader.nothing()]], pad_id), device)
        self._takes = takes
        self._blanks = {lane: to_device(_blank(loader, lane), device) for lane in set(takes.values())}

    def drawn(self, draw: Callable[[], Drawn]) -> Drawn:
        error, found = None, None
        try:
            found = draw()
        except Exception as raised:
            error = raised
        mine = [] if found is None else [sorted(self._lanes(part)) for part in found[1]]
        told = self._ranks.gather({"lanes": mine, "error": None if error is None else f"{type(error).__name__}: {error}"})
        raise_one(error, [each["error"] for each in told])
        assert found is not None
        loaded, parts = found
        return loaded, [self._lent(parts[i] if i < len(parts) else self._nothing,
                                   {lane for each in told for lane in (each["lanes"][i : i + 1] or [[]])[0]})
                        for i in range(max(len(each["lanes"]) for each in told))]  # fmt: skip

    def _lanes(self, part: Batch) -> set[str]:
        """Those that a pass runs, by whatever kind of media; pictures that are tokens go through nothing that is divided."""
        return {self._takes[kind] for kind in part.media if kind in self._takes}

    def _lent(self, part: Batch, lanes: Collection[str]) -> Batch:
        for lane in sorted(set(lanes) - self._lanes(part)):
            part = with_row(part, self._blanks[lane])
        return part

    @contextmanager
    def passing(self) -> Generator[None]:
        self.inside = True
        try:
            yield
        except RuntimeError as error:
            if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            with alive():
                raise
        self.inside = False


def _blank(loader: Loader, kind: str) -> Batch:
    """A row with a grey picture, from which nothing is learned."""
    grey = np.full((BLANK_PX, BLANK_PX, 3), 127, dtype=np.uint8)
    sample = Sample(messages=(Message("user", (Part(kind, grey),)), Message("assistant", (Part("text", "."),))))
    batch = collate([[loader.processor.encode(sample)]], loader.processor.tokenizer.pad_id)
    return replace(batch, learn_BT=torch.zeros_like(batch.learn_BT), ids=("",))

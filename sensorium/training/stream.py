"""A stage's batches on their way to its device.

For a processor, threads make them beside the model. For a GPU, which is kept busy by the one thread that may run Python, processes do
(`data/apart.py`), as many as `workers` says, and a thread copies them over while the batch before is computed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

import torch

from sensorium.data.ahead import ahead
from sensorium.data.apart import apart, can_run_apart
from sensorium.data.loader import LoadedBatch, Loader
from sensorium.data.mixture import MixtureState
from sensorium.model.device import can_send_ahead, sent_ahead
from sensorium.processing.together import features_together
from sensorium.training.truncation import CutCounter

Made = tuple[LoadedBatch, dict[int, int]]
"""A batch, and what was cut in it."""


@contextmanager
def batches_for(device: torch.device, loader: Loader, state: MixtureState, cuts: CutCounter) -> Iterator[Generator[LoadedBatch]]:
    """Batches from a state on; what makes them ends with the block.

    Args:
        cuts: watches the loader's Examples.
    """
    with ExitStack() as stack:
        if not can_send_ahead(device):
            yield stack.enter_context(closing(loader.batches(state)))
            return
        if loader.options.workers and can_run_apart():
            made = stack.enter_context(made_apart(loader, state, cuts, pinned=True))
        else:
            made = stack.enter_context(closing(loader.batches(state)))
        yield stack.enter_context(ahead(made, lambda loaded: _sent(loaded, device)))


@contextmanager
def made_apart(loader: Loader, state: MixtureState, cuts: CutCounter, *, pinned: bool = False) -> Iterator[Generator[LoadedBatch]]:
    """The same batches, made by as many processes as the loader has workers: each plans all of them and makes every so manieth."""
    processes = loader.options.workers

    def stream(number: int) -> Generator[Made]:
        if loader.processor.shelf is not None:
            loader.processor.shelf.follow()
        options = replace(loader.options, workers=0, turn=number, turns=processes)
        mine = Loader(loader.sources, loader.order, loader.processor, options, loader.transform)
        for loaded in mine.batches(state):
            yield replace(loaded, batch=features_together(loaded.batch)), cuts.taken(loaded.picks)

    def noted(items: Generator[Any]) -> Generator[LoadedBatch]:
        for loaded, cut in items:
            cuts.noted(cut)
            yield loaded

    with apart(stream, processes, pinned=pinned) as items:
        yield noted(items)


def _sent(loaded: LoadedBatch, device: torch.device) -> LoadedBatch:
    return replace(loaded, batch=sent_ahead(features_together(loaded.batch), device))

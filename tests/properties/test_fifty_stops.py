"""The order of data is one order: fifty stops, each gone on from with other numbers of ranks and threads, change no batch of it."""

from __future__ import annotations

import json
import random
import zlib
from contextlib import ExitStack, closing
from itertools import islice
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sensorium.core.sample import Sample, parse_sample
from sensorium.data.augmenting import AugmentConfig
from sensorium.data.loader import LoadedBatch, Loader, LoaderOptions
from sensorium.data.mixture import MixtureOrder, MixtureState, Pick
from sensorium.data.plan import Size
from sensorium.data.source import ListSource
from sensorium.model.config import ModelConfig
from sensorium.processing.processor import Processor
from sensorium.recipes.tiny import tiny_model
from sensorium.text.byte_tokenizer import byte_tokenizer

STOPS = 50
CONFIG: ModelConfig = tiny_model()
PROCESSOR = Processor(CONFIG, byte_tokenizer())
MODES: dict[str, dict[str, Any]] = {
    "pack": {"batch_size": 3, "pack": True, "max_pictures_per_row": 3},
    "budget": {"batch_size": 1, "token_budget": 400},
    "plain": {"batch_size": 5},
}
Row = tuple[tuple[tuple[int, int, int], ...], tuple[int, ...], tuple[int, ...]]
"""Of a row: source, row and pass of each sample; its token ids; a checksum of each of its pictures."""


def conversation(name: str, number: int, pictures: int) -> Sample:
    rng = random.Random(f"{name} {number}")
    shades = [np.full((20, 20 + rng.randrange(9), 3), rng.randrange(256), np.uint8) for _ in range(pictures)]
    for shade in shades:
        shade[:, :7] = number
    said = f"{name}{number} " + "q" * rng.randrange(30)
    content: list[Any] = [*({"type": "image", "image": Image.fromarray(shade)} for shade in shades), {"type": "text", "text": said}]
    return parse_sample({"id": said, "messages": [{"role": "user", "content": content},
                                                  {"role": "assistant", "content": "a" * rng.randrange(1, 60)}]})  # fmt: skip


# Pictures, two in some rows and none in others, augmented by the number of the pick; text alone; few pictures, augmented by
# the pass over them.
SOURCES = [
    ListSource("pictures", [conversation("p", n, (1, 1, 0, 2)[n % 4]) for n in range(31)]),
    ListSource("texts", [conversation("t", n, 0) for n in range(17)]),
    ListSource("changed", [conversation("c", n, 1) for n in range(5)]),
]
ORDER = MixtureOrder([31, 17, 5], [3.0, 2.0, 1.0], seed=5)
SIZES: dict[Pick, Size] = {}
"""Measured once, not by each of some 130 loaders; that a loader measures what it encodes is another file's test."""


class Measured(Loader):
    def size(self, pick: Pick) -> Size:
        if pick not in SIZES:
            SIZES[pick] = super().size(pick)
        return SIZES[pick]


def stream(state: MixtureState, options: dict[str, Any]) -> Any:
    loader = Measured(SOURCES, ORDER, PROCESSOR, LoaderOptions(
        max_length=160, seed=9, augment=(AugmentConfig(mirror=True), None, AugmentConfig(views=2)), **options))  # fmt: skip
    return closing(loader.batches(state))


def picks() -> dict[int, tuple[int, int, int]]:
    walk = ORDER.start()
    return {p.number: (p.source, p.row, p.epoch) for p in (ORDER.next(walk) for _ in range(4000))}


PICKS = picks()


def rows_of(loaded: LoadedBatch) -> list[Row]:
    """The rows of one rank's share, with what the model sees of each."""
    if not loaded.samples:
        return []
    batch, numbers = loaded.batch, iter(loaded.picks)
    pictures: list[list[int]] = [[] for _ in range(len(batch.input_ids_BT))]
    for media in batch.media.values():
        tiles = iter(media.pixels_NCHW)
        for plan, row in zip(media.plans, media.rows, strict=True):
            pictures[row].append(zlib.crc32(b"".join(tile.numpy().tobytes() for tile in islice(tiles, plan.images))))
    made: list[Row] = []
    for ids, segments, shown in zip(batch.input_ids_BT, batch.segments_BT, pictures, strict=True):
        samples = tuple(PICKS[next(numbers)] for _ in range(int(segments.max())))
        made.append((samples, tuple(ids[segments > 0].tolist()), tuple(shown)))
    assert next(numbers, None) is None
    return made


def together(shares: list[LoadedBatch]) -> list[Row]:
    """The rows of a batch, from the ranks that they were dealt out to one by one."""
    rows = [rows_of(share) for share in shares]
    return [rows[n % len(rows)][n // len(rows)] for n in range(sum(map(len, rows)))]


@pytest.mark.parametrize("mode", MODES)
def test_fifty_stops_on_other_numbers_of_ranks_change_no_batch(mode: str) -> None:
    rng = random.Random(mode)
    legs = [rng.randint(1, 3) for _ in range(STOPS + 1)]
    with stream(ORDER.start(), MODES[mode]) as batches:
        whole = [rows_of(one) for one in islice(batches, sum(legs))]
    # The run is long enough to mean something: all sources, several passes, rows with and without pictures.
    seen = {sample for rows in whole for samples, _, _ in rows for sample in samples}
    assert {source for source, _, _ in seen} == {0, 1, 2}
    assert max(epoch for _, _, epoch in seen) >= 3
    assert {bool(shown) for rows in whole for _, _, shown in rows} == {True, False}

    state, step, world, worlds = ORDER.start(), 0, 1, set[int]()
    for length in legs:
        world, workers = rng.choice([n for n in (1, 2, 3, 4) if n != world]), rng.choice((0, 2))
        worlds.add(world)
        with ExitStack() as stack:
            ranks = [stack.enter_context(stream(state, {**MODES[mode], "rank": r, "world_size": world, "workers": workers}))
                     for r in range(world)]  # fmt: skip
            for _ in range(length):
                shares = [next(rank) for rank in ranks]
                assert together(shares) == whole[step], (step, world, workers)
                step += 1
        assert all(share.state == shares[0].state for share in shares)
        # As a checkpoint keeps it.
        counts, plan = json.loads(json.dumps([shares[0].state.counts, shares[0].state.plan()]))
        state = MixtureState.saved(counts, plan)
    assert worlds == {1, 2, 3, 4}
    assert step == len(whole)

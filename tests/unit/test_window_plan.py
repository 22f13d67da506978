"""The plan of batches: complete, within limits, the same for every rank and after every stop."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import closing
from itertools import islice
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sensorium.core.errors import ConfigError, DataError
from sensorium.core.sample import Sample, parse_sample
from sensorium.data.loader import LoadedBatch, Loader, LoaderOptions
from sensorium.data.mixture import MixtureOrder, MixtureState, Pick
from sensorium.data.plan import Limits, Size, group_by_length, pack_rows, padded_tokens
from sensorium.data.source import ListSource
from sensorium.data.window import Planned, PlanOptions, Windows
from sensorium.interop.assemble import build_pretrained
from sensorium.processing.processor import Processor
from sensorium.recipes.tiny import tiny, tiny_model
from sensorium.training.objectives.counting import PerSample
from sensorium.training.objectives.next_token import next_token_losses

SIZES = st.lists(st.builds(lambda n, p: Size((n,), p), st.integers(1, 40), st.integers(0, 3)), max_size=80)


@settings(max_examples=150, deadline=None)
@given(SIZES, st.integers(1, 40), st.none() | st.integers(1, 4))
def test_rows_hold_every_sample_once_within_the_limits(
    sizes: list[Size], most: int, pictures: int | None
) -> None:
    rows = pack_rows(sizes, Limits(most, pictures))
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    for row in rows:
        assert sum(sizes[i].tokens for i in row) <= most or len(row) == 1
        if pictures is not None:
            shown = [sizes[i].pictures for i in row if sizes[i].pictures]
            assert sum(shown) <= pictures or len(shown) == 1
    assert rows == pack_rows(sizes, Limits(most, pictures))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.builds(lambda n: Size(tuple(n)), st.lists(st.integers(1, 40), min_size=1, max_size=3)),
                max_size=60), st.integers(1, 200))  # fmt: skip
def test_groups_hold_every_sample_once_within_the_budget(sizes: list[Size], budget: int) -> None:
    groups = group_by_length(sizes, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(sizes)))
    assert all(padded_tokens([sizes[i] for i in g]) <= budget or len(g) == 1 for g in groups)


class Known:
    """The size of a pick, by its source and row."""

    def __init__(self, pick: Pick, longest: int) -> None:
        self.pick, self.longest = pick, longest

    def result(self) -> Size:
        rng = random.Random(f"{self.pick.source} {self.pick.row}")
        if rng.random() < 0.05:
            raise DataError(f"bad {self.pick.source} {self.pick.row}")
        return Size((min(self.longest, int(rng.lognormvariate(3.3, 0.8)) + 1),), rng.randrange(3))


MODES = {
    "pack": PlanOptions(3, 200, pack=True, skip_bad=True),
    "capped": PlanOptions(4, 200, pack=True, max_pictures=4, skip_bad=True),
    "budget": PlanOptions(8, 200, token_budget=400, skip_bad=True),
    "plain": PlanOptions(5, 200, skip_bad=True),
}


def planned(mode: str, state: MixtureState | None = None) -> Any:
    order = MixtureOrder([700, 90], [2.0, 1.0], seed=3)
    windows = Windows(order, MODES[mode], lambda pick: Known(pick, MODES[mode].max_length))
    return windows.batches(order.start() if state is None else state)


@pytest.mark.parametrize("mode", MODES)
def test_every_pick_comes_once_and_a_stop_anywhere_changes_nothing(mode: str) -> None:
    whole: list[Planned] = list(islice(planned(mode), 160))
    numbers = [pick.number for one in whole for row in one.rows for pick in row]
    assert max(Counter(numbers).values()) == 1
    bad = sum(len(one.problems) for one in whole)
    # What is missing up to the last few windows is bad, or waits for a place.
    waiting = 400 if mode != "plain" else 0
    assert max(numbers) + 1 - len(numbers) - bad <= waiting
    rng = random.Random(mode)
    for stop in [0, 159, *rng.sample(range(160), 48)]:
        state = whole[stop].state
        again = MixtureState.saved(list(state.counts), state.plan())
        assert again == state
        assert len(state.plan()) < 200
        rest = list(islice(planned(mode, again), 12))
        assert rest[: 159 - stop] == whole[stop + 1 : stop + 13][: len(rest[: 159 - stop])]


def test_rows_are_full() -> None:
    batches = list(islice(planned("pack"), 200))
    sizes = [sum(Known(p, 200).result().tokens for p in row) for one in batches for row in one.rows]
    assert all(len(one.rows) == 3 for one in batches)
    assert max(sizes) <= 200
    assert sum(sizes) / (200 * len(sizes)) > 0.97


def test_a_small_data_set_comes_whole_before_it_comes_again() -> None:
    order = MixtureOrder([40], [1.0], seed=0)
    windows = Windows(order, PlanOptions(1, 100, pack=True), lambda pick: Fixed(Size((30,))))
    seen = [p.row for one in islice(windows.batches(order.start()), 12) for row in one.rows for p in row]
    assert len(set(seen)) == len(seen) == 36


class Fixed:
    def __init__(self, size: Size) -> None:
        self.size = size

    def result(self) -> Size:
        return self.size


MODEL, TOKENIZER = build_pretrained(tiny_model())


def conversation(number: int) -> Sample:
    rng = random.Random(number)
    content: list[Any] = [{"type": "text", "text": "q" * rng.randrange(1, 30)}]
    if number % 3:
        shade = np.full((20, 20 + number % 7, 3), number, np.uint8)
        content.insert(0, {"type": "image", "image": Image.fromarray(shade)})
    return parse_sample({"id": str(number), "messages": [
        {"role": "user", "content": content},
        {"role": "assistant", "content": "a" * rng.randrange(1, 50)}]})  # fmt: skip


def loaded(
    count: int, state: MixtureState | None = None, *, bad: frozenset[int] = frozenset(), **options: Any
) -> list[LoadedBatch]:
    samples = [conversation(n) for n in range(60)]
    order = MixtureOrder([60], [1.0], seed=1)
    made = LoaderOptions(**{"batch_size": 3, "max_length": 192, "skip_bad": True, **options})
    loader = Loader([ListSource("rows", samples)], order, Processor(MODEL.config, TOKENIZER), made)
    real = loader.examples

    def decoded(pick: Pick) -> Any:
        if pick.row in bad:
            raise DataError(f"damaged {pick.row}")
        return real(pick)

    loader.examples = decoded
    with closing(loader.batches(state or order.start())) as stream:
        return [next(stream) for _ in range(count)]


def rows_of(batch: LoadedBatch) -> list[list[int]]:
    ids, segments = batch.batch.input_ids_BT, batch.batch.segments_BT
    return [row[mask > 0].tolist() for row, mask in zip(ids, segments, strict=True)] if batch.samples else []


OPTIONS: dict[str, dict[str, Any]] = {
    "pack": {"pack": True, "max_pictures_per_row": 3},
    "budget": {"token_budget": 500},
    "plain": {},
}


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("mode", OPTIONS)
def test_ranks_share_the_batches_of_one(mode: str, world: int, workers: int) -> None:
    bad = frozenset({4, 11})
    options = OPTIONS[mode]
    whole = loaded(8, bad=bad, workers=2, **options)
    shares = [loaded(8, bad=bad, workers=workers, rank=r, world_size=world, **options) for r in range(world)]
    for number, one in enumerate(whole):
        mine = [share[number] for share in shares]
        assert all(m.state == one.state for m in mine)
        assert sorted(p for m in mine for p in m.picks) == sorted(one.picks)
        assert sum(m.samples for m in mine) == one.samples
        assert sorted(r for m in mine for r in rows_of(m)) == sorted(rows_of(one))
        # Another number of ranks goes on from there.
        if number == 3:
            rest = loaded(4, mine[0].state, bad=bad, workers=workers, **options)
            assert [(r.picks, rows_of(r)) for r in rest] == [(w.picks, rows_of(w)) for w in whole[4:]]


def test_damage_found_late_leaves_gaps_and_an_empty_share_teaches_nothing() -> None:
    bad = frozenset(range(60)) - {7}
    batches = loaded(20, bad=bad, batch_size=3)
    assert sum(len(b.problems) for b in batches) == 59
    assert sum(b.samples for b in batches) == 1
    empty = next(b for b in batches if not b.samples).batch
    assert not empty.learn_BT.any()
    assert not empty.media
    losses = next_token_losses(MODEL, empty)
    assert float(losses.total) == 0
    assert losses.count == 0
    with pytest.raises(DataError, match="every row of the mixture is bad"):
        loaded(50, bad=frozenset(range(60)))
    with pytest.raises(DataError, match="damaged"):
        loaded(30, bad=bad, skip_bad=False)


@pytest.mark.parametrize("loss_per", ["token", "sample"])
def test_packed_loss_is_unpacked_loss(loss_per: Literal["token", "sample"]) -> None:
    packed = loaded(2, pack=True, batch_size=2, loss_per=loss_per, loss_weights=(0.5,))
    objective = PerSample(next_token_losses) if loss_per == "sample" else next_token_losses
    samples = [conversation(n) for n in range(60)]
    order = MixtureOrder([60], [1.0], seed=1)
    options = LoaderOptions(batch_size=1, max_length=192, loss_per=loss_per, loss_weights=(0.5,))
    loader = Loader([ListSource("rows", samples)], order, Processor(MODEL.config, TOKENIZER), options)
    walk = order.start()
    picks = {pick.number: pick for pick in (order.next(walk) for _ in range(200))}
    from sensorium.processing.collate import collate

    for one in packed:
        with torch.no_grad():
            row = objective(MODEL, one.batch)
            apart = [objective(MODEL, collate([loader.examples(picks[n])], 0)) for n in one.picks]
            raw = [next_token_losses(MODEL, collate([loader.examples(picks[n])], 0)) for n in one.picks]
        assert row.count == sum(a.count for a in apart)
        total = sum(float(a.total) for a in apart)
        assert float(row.total) / row.count == pytest.approx(total / row.count, abs=1e-6)
        if loss_per == "sample":
            assert row.count == one.samples
            # Half of the mean of each conversation's own mean.
            means = [r.parts["next_token"] for r in raw]
            assert total / row.count == pytest.approx(0.5 * sum(means) / len(means), abs=1e-6)


@pytest.mark.parametrize(
    "options", [("pack=true", "token_budget=2000"), ("max_pictures_per_row=2",), ("token_budget=100",)]
)
def test_options_that_do_not_fit_are_refused(options: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"token_budget|max_pictures_per_row"):
        tiny().override([f"stages.align.{option}" for option in options])

"""Batches made by processes of their own are the ones that threads make, whatever happens to those who make them."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Generator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_batches import tiny
from torch import Tensor

from sensorium.core.errors import DataError
from sensorium.data.ahead import ahead
from sensorium.data.apart import apart, can_run_apart
from sensorium.data.loader import LoadedBatch, Loader
from sensorium.features.store import FeatureStore, StoreOptions, used_by
from sensorium.interop.assemble import build_pretrained
from sensorium.processing.processor import Processor
from sensorium.processing.together import features_together
from sensorium.training.objectives.next_token import next_token_losses
from sensorium.training.preflight import loader_options, prepare_stage
from sensorium.training.stream import made_apart
from sensorium.training.truncation import CutCounter

pytestmark = pytest.mark.skipif(not can_run_apart(), reason="no copies of processes here")


def numbers(process: int) -> Generator[dict[str, Any]]:
    for i in range(4):
        yield {"n": (i, process), "x": torch.full((3, 4), i * 10 + process, dtype=torch.bfloat16), "none": torch.empty(0, 3), "b": torch.tensor([True])}


def fails(process: int) -> Generator[int]:
    yield process
    if process:
        raise DataError("bad row", where="line 3", fix="mend it")
    yield 2


def dies(process: int) -> Generator[int]:
    yield process
    os.kill(os.getpid(), signal.SIGKILL)


def test_items_of_all_in_turn() -> None:
    with apart(numbers, 3) as items:
        found = list(items)
    assert [one["n"] for one in found] == [(i, p) for i in range(4) for p in range(3)]
    assert all(torch.equal(one["x"], torch.full((3, 4), one["n"][0] * 10 + one["n"][1], dtype=torch.bfloat16)) for one in found)
    assert found[0]["none"].shape == (0, 3)
    assert found[0]["b"].dtype == torch.bool


def test_errors_come_in_their_place() -> None:
    with apart(fails, 2) as items:
        assert [next(items), next(items), next(items)] == [0, 1, 2]
        with pytest.raises(DataError, match=r"line 3: bad row.*mend it") as raised:
            next(items)
    assert (raised.value.found, raised.value.where) == ("bad row", "line 3")
    assert "fails" in raised.value.__notes__[0]


def test_a_killed_process_is_named_and_none_is_left() -> None:
    with apart(dies, 1) as items:
        assert next(items) == 0
        with pytest.raises(DataError, match=r"ended before its time.*workers: 0"):
            next(items)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_ahead_keeps_order_and_errors() -> None:
    def some() -> Generator[int]:
        yield from range(3)
        raise DataError("over")

    with ahead(some(), lambda n: n * n) as items:
        assert [next(items) for _ in range(3)] == [0, 1, 4]
        with pytest.raises(DataError, match="over"):
            next(items)
    closed: list[bool] = []

    def endless() -> Generator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    with ahead(endless(), lambda n: n) as items:
        assert next(items) == 0
    assert closed == [True]


def made(*overrides: str, kept: Path | None = None) -> tuple[Any, Loader, Any, CutCounter]:
    torch.manual_seed(0)
    recipe = tiny("stages.instruct.pack=true", "stages.instruct.batch_size=2", *overrides)
    model, tokenizer = build_pretrained(recipe.model)
    stage = recipe.stages[-1]
    parts = prepare_stage(stage, model, Processor(recipe.model, tokenizer))
    cuts = CutCounter(stage.name, stage.max_length)
    return model.eval(), Loader(parts.sources, parts.order, parts.processor, loader_options(stage), cuts.watch), parts, cuts


def same(a: Any, b: Any, where: str = "") -> None:
    """All fields, tensors among them, are equal."""
    if isinstance(a, Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    elif is_dataclass(a):
        for field in fields(a):
            same(getattr(a, field.name), getattr(b, field.name), f"{where}.{field.name}")
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


@pytest.mark.parametrize("overrides", [(), ("stages.instruct.pack=false", "stages.instruct.batch_size=3"), ("stages.instruct.max_length=210",)])
def test_batches_are_those_of_threads(overrides: tuple[str, ...]) -> None:
    _, loader, parts, cuts = made(*overrides)
    plain = loader.batches(parts.order.start())
    wanted = [(one, cuts.of(one.picks)) for one in itertools.islice(plain, 7)]
    plain.close()
    loader.options = replace(loader.options, workers=3)
    for begin in (0, 3):
        state = wanted[begin - 1][0].state if begin else parts.order.start()
        with made_apart(loader, state, cuts) as stream:
            for one, cut in wanted[begin:]:
                found = next(stream)
                same(one, found)
                assert cuts.of(found.picks) == cut


def test_a_store_is_followed(tmp_path: Path) -> None:
    model, loader, parts, cuts = made()
    loader.options = replace(loader.options, workers=1)
    store = FeatureStore(model, ["image"], StoreOptions(tmp_path))
    losses: dict[tuple[int, ...], float] = {}
    with used_by(model, parts.processor, store):
        loader.processor.shelf = store
        with made_apart(loader, parts.order.start(), cuts) as stream:
            found: list[LoadedBatch] = []
            while not any(one.batch.media["image"].features is not None for one in found[1:]):
                found.append(next(stream))
                losses[tuple(found[-1].picks)] = float(next_token_losses(model, found[-1].batch).total.detach())
                # The copy looks for what was written meanwhile every few seconds.
                time.sleep(0.2)
                assert len(found) < 200, "nothing was ever found"
    plain = Loader(loader.sources, loader.order, replace_shelf(loader.processor), replace(loader.options, workers=0))
    for one, again in zip(found, plain.batches(parts.order.start()), strict=False):
        assert one.picks == again.picks
        assert losses[tuple(one.picks)] == pytest.approx(float(next_token_losses(model, again.batch).total.detach()), rel=1e-6)


def replace_shelf(processor: Processor) -> Processor:
    processor.shelf = None
    return processor


def test_features_are_laid_together(tmp_path: Path) -> None:
    model, loader, parts, _ = made()
    loader.options = replace(loader.options, workers=0)
    store = FeatureStore(model, ["image"], StoreOptions(tmp_path))
    with used_by(model, parts.processor, store), torch.no_grad():
        first = next(loader.batches(parts.order.start()))
        next_token_losses(model, first.batch)
        store.writer.close()
        second = next(loader.batches(parts.order.start()))
        assert all(one is not None and one.features is not None for one in second.batch.media["image"].kept)
        together = features_together(second.batch)
        assert together.media["image"].features is not None
        a, b = (float(next_token_losses(model, batch).total) for batch in (second.batch, together))
        assert a == b

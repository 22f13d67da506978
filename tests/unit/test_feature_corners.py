"""Corners of the feature store: the same picture twice, more shards than a process may open, a store that is closed or gone."""

from __future__ import annotations

import os
import random
import resource
import shutil
from pathlib import Path

import pytest
import torch
from test_feature_store import features, fill, opened, picture, sample
from test_model import make

from sensorium.core.batch import Example, Features, Grid, Kept, MediaBatch, MediaShape, TilePlan
from sensorium.features.store import used_by
from sensorium.features.tower_store import TowerStore
from sensorium.media.augment import Augmentation

LARGEST = 65504.0
"""Of fp16."""


def test_a_picture_that_stands_twice_in_a_sample_has_two_views(tmp_path: Path) -> None:
    model = make("splice")
    row = sample(picture(tmp_path, 0), picture(tmp_path, 0))

    def encoded() -> Example:
        return model.processor.encode(row, augmentation=Augmentation(random.Random(3), False, 3))

    expected = features(model, encoded()).values_ND
    first, second = expected.chunk(2)
    assert not torch.allclose(first, second)
    for _ in range(2):
        with used_by(model.network, model.processor, opened(model, tmp_path / "store")):
            same = torch.equal(features(model, encoded()).values_ND, expected)
            assert same


def test_a_store_may_have_more_shards_than_a_process_may_open_files(tmp_path: Path) -> None:
    fill(tmp_path, "v1-many", 80)
    store = TowerStore(tmp_path / "v1-many", shard_bytes=1000)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_next_file() + 20, limits[1]))
    try:
        found = [reader.read(place) for ((reader, place),) in store._places.values()]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        store.close()
    assert len(found) == 80
    assert all(found)


def _next_file() -> int:
    """The number that the next file would get."""
    number = os.open(os.devnull, os.O_RDONLY)
    os.close(number)
    return number


def test_a_closed_store_takes_nothing_more(tmp_path: Path) -> None:
    model = make("splice")
    store = model.keep_features(tmp_path / "store")
    assert store is not None
    row = sample(picture(tmp_path, 0))
    features(model, model.processor.encode(row))
    store.close()
    features(model, model.processor.encode(sample(picture(tmp_path, 1))))
    assert store.writer.written == 1
    assert store.writer._jobs.empty()


def test_values_beyond_half_precision_stay_numbers(tmp_path: Path) -> None:
    model = make("splice")
    store = opened(model, tmp_path / "store", half=True)
    values_ND = torch.tensor([[1e5, -1e5, 1.0 + 2**-12]])
    media = MediaBatch(torch.zeros(1), (TilePlan(),), kept=(Kept(b"k" * 32, MediaShape(1, 1), ""),))
    given = store.keep("image", media, Features(values_ND, (Grid(1, 1),))).values_ND
    store.writer.close()
    assert given.tolist() == [[LARGEST, -LARGEST, 1.0]]
    found = store.find("image", b"k" * 32)
    assert found is not None
    assert found.features is not None
    assert torch.equal(found.features.values_ND, given)
    store.close()


def test_a_folder_that_goes_away_stops_the_writing_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make("splice")
    store = opened(model, tmp_path / "store")
    shutil.rmtree(tmp_path / "store")
    with used_by(model.network, model.processor, store):
        features(model, model.processor.encode(sample(picture(tmp_path, 0))))
    assert store.writer.stopped
    assert capsys.readouterr().err.count("cannot be written") == 1


def test_answers_do_without_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    model = make("splice")
    assert model.keep_features(tmp_path / "file" / "store") is None
    assert "features are not kept: " in capsys.readouterr().err
    assert len(features(model, model.processor.encode(sample(picture(tmp_path, 0)))).grids) == 1

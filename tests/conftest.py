"""Shared fixtures: fixed seeds, few threads, a folder of caches of its own."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sensorium.training import trainer

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """All modules are read: what they left, some million objects, is not gone through again by every collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def curve_drawn() -> None:
    """For tests that look at a run's `loss.png`: drawing it takes as long as a tiny run."""


@pytest.fixture(autouse=True)
def _curves_when_asked_for(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "curve_drawn" not in request.fixturenames:
        monkeypatch.setattr(trainer, "draw_curve", lambda *_: False)


@pytest.fixture
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty data folder, so that a built picture-book on this machine changes nothing."""
    monkeypatch.setenv("SENSORIUM_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small PNG."""
    from PIL import Image

    path = tmp_path / "picture.png"
    Image.new("RGB", (40, 24), (200, 30, 40)).save(path)
    return path

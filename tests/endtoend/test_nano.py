"""The weights that ship: they load, they are small, and they see."""

from __future__ import annotations

from pathlib import Path

import pytest

import sensorium
from sensorium.evaluation.benchmarks.category import Category
from sensorium.evaluation.benchmarks.scenes import Attribute
from sensorium.evaluation.runner import run_benchmark

SHIPPED = Path(sensorium.__file__).parent / "assets" / "nano"


@pytest.fixture(scope="module")
def nano() -> sensorium.Model:
    return sensorium.load("nano", device="cpu")


def test_shipped_weights_are_small() -> None:
    assert (SHIPPED / "model.safetensors").stat().st_size <= 10 * 2**20


def test_nano_is_the_recipe_that_stands_in_the_tree(nano: sensorium.Model) -> None:
    from sensorium.recipes.nano import nano_model

    assert nano.network.config == nano_model()


def test_nano_sees(nano: sensorium.Model) -> None:
    """Far better with the picture than without; how much better is for `sensorium eval`."""
    for benchmark in (Category(part="shipped", limit=14), Attribute(limit=14)):
        result = run_benchmark(benchmark, nano.engine)
        assert result.headline("model") > result.headline("blind") + 0.25, benchmark.kind

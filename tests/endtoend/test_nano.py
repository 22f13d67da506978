"""The weights that ship: they load, they are small, and they see."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

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


def test_nano_speaks(nano: sensorium.Model) -> None:
    """How well it is understood is for `benchmarks/speech.py`."""
    pytest.importorskip("espeakng_loader", reason="espeakng_loader is not installed (extra `gen`)")
    answer = nano.answer([{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (64, 64), (200, 30, 30))},
                                                       {"type": "text", "text": "Which colour is this?"}]}], speak=True)  # fmt: skip
    text, sound = answer.content
    seconds = len(sound.value.array) / sound.value.sample_rate_hz
    assert (text.type, sound.type) == ("text", "audio")
    # Half a second of silence on both sides.
    assert 1.1 < seconds < 1.5 + 1.5 * len(text.value.split()), text.value

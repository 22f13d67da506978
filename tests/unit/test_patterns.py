"""Patterns over names: what they fit, and what is said of one that fits nothing."""

from __future__ import annotations

import pytest

from sensorium.core.errors import ConfigError
from sensorium.core.patterns import Pattern, fitting

NAMES = [f"model.layers.{i}.{rest}" for i in range(12)
         for rest in ("self_attn.q_proj.weight", "mlp.fc1.weight", "input_layernorm.weight")] + ["model.norm.weight"]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("q_proj", 12), ("layers.[4-7]", 12), ("layers.[10-]", 6), ("layers.[-1].mlp", 2), ("layers.[3]", 3), ("*", 37),
     ("*norm*", 13), ("norm", 1), ("layers.*.mlp", 12), ("layers.1", 3), ("model.layers.1[-5].mlp", 2),
     ("layers.[2-3].**.q_proj", 2), ("layers.1.**", 3), ("**", 37), ("layers.**.norm", 0)],
)  # fmt: skip
def test_what_fits(pattern: str, count: int) -> None:
    assert sum(Pattern(pattern).fits(name) for name in NAMES) == count


def test_pieces_stand_next_to_each_other_and_are_whole() -> None:
    assert not Pattern("layers.mlp").fits("layers.3.mlp")
    assert not Pattern("proj").fits("layers.3.q_proj")
    assert Pattern("block_[2-3].x").fits("a.block_3.x.weight")
    assert not Pattern("block_[2-3].x").fits("a.block_13.x.weight")
    # A dot is a dot.
    assert not Pattern("layers.1").fits("layersx1")


@pytest.mark.parametrize("bad", ["", "layers..mlp", "layers.[a-b]", "layers.[3", "x]"])
def test_what_cannot_be_read_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match="pattern"):
        Pattern(bad)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("self_atn", "did you mean 'self_attn'"), ("layers.[20-30]", "numbers go from 0 to 11"),
     ("mlp.layers", "a name here is model.layers"), ("zzzzzz", "known: ")],
)  # fmt: skip
def test_what_fits_nothing_is_mended(pattern: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fitting(("q_proj", pattern), NAMES, "here")

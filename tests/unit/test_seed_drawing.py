"""What steers how SEED's codes are drawn: the caller's seed, steps and guidance, progress and stopping."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from test_picture_words import ASK, FIRST, config

from sensorium.api import Model
from sensorium.core.errors import ConfigError
from sensorium.core.hands import CancelledError, Making
from sensorium.core.sample import Sample, parse_messages
from sensorium.generators.seed import SeedConfig, SeedTokenizer
from sensorium.inference.making import Maker
from sensorium.interop.assemble import build_pretrained
from sensorium.model.picture_words import PictureWordsConfig

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
IDS = torch.tensor([[3, 1, 7, 2], [0, 15, 4, 4]])


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    told = PictureWordsConfig(tokenizer=SeedConfig.tiny(), words=((FIRST, SeedConfig.tiny().codes),), begin=("<pic>",), end=("</pic>",))
    return Model(*build_pretrained(config(shared=True).model_copy(update={"picture_words": told})))


@pytest.fixture(scope="module")
def seed(model: Model) -> SeedTokenizer:
    return cast(SeedTokenizer, model.network.picture_tokenizer)


def test_the_seed_is_the_callers(seed: SeedTokenizer) -> None:
    first = seed.decode(IDS, making=Making(seed=3))
    assert torch.equal(first, seed.decode(IDS, making=Making(seed=3)))
    assert not torch.equal(first, seed.decode(IDS, making=Making(seed=4)))
    assert torch.equal(seed.decode(IDS), seed.decode(IDS, making=Making()))


def test_steps_and_guidance_are_its_own_where_no_others_are_asked_for(seed: SeedTokenizer) -> None:
    steps: list[tuple[int, int]] = []
    told = Making(seed=3, progress=lambda *at: steps.append(at))
    own = seed.decode(IDS, making=told)
    assert steps == [(1, 2), (2, 2)]
    steps.clear()
    assert not torch.equal(seed.decode(IDS, making=replace(told, steps=3)), own)
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(seed.decode(IDS, making=Making(seed=3, guidance=seed.config.guidance)), own)
    assert not torch.equal(seed.decode(IDS, making=Making(seed=3, guidance=1.0)), own)


def test_it_stops_when_it_is_asked_to(seed: SeedTokenizer) -> None:
    steps: list[tuple[int, int]] = []
    with pytest.raises(CancelledError, match="stopped after step 1 of 2"):
        seed.decode(IDS, making=Making(progress=lambda *at: steps.append(at), cancelled=lambda: True))
    assert steps == [(1, 2)]
    with pytest.raises(ConfigError, match="ids from 0 to 99"):
        seed.decode(IDS.clone().fill_(0).index_fill(1, torch.tensor([2]), 99), making=Making())


def parts_of(model: Model, making: Making, rows: torch.Tensor = IDS[:1]) -> list[Any]:
    """The parts of an answer with these codes."""
    frames = model.processor.frames
    assert frames is not None
    asked = Sample(parse_messages(ASK))
    begin, end = (model.tokenizer.special_id(token) for token in ("<pic>", "</pic>"))
    ids = [i for row in rows.tolist() for i in (begin, *(FIRST + code for code in row), end)]
    prompt = model.processor.encode(asked, answer_next=True)
    return list(Maker(model.network, model.processor, making).parts(prompt, ids, asked))


def test_an_answers_picture_is_drawn_as_is_asked_for(model: Model) -> None:
    steps: list[tuple[int, int]] = []
    (one,), (again,), (other,) = (parts_of(model, Making(seed=n, progress=lambda *at: steps.append(at))) for n in (3, 3, 4))
    assert [one.type, again.type, other.type] == ["image"] * 3
    assert np.array_equal(np.asarray(one.value), np.asarray(again.value))
    assert not np.array_equal(np.asarray(one.value), np.asarray(other.value))
    assert steps == [(1, 2), (2, 2)] * 3
    # Of several pictures each has a seed of its own, though their codes are the same.
    first, second = parts_of(model, Making(seed=3), IDS[[0, 0]])
    assert np.array_equal(np.asarray(first.value), np.asarray(one.value))
    assert np.array_equal(np.asarray(second.value), np.asarray(other.value))


def test_an_answers_picture_that_is_stopped_is_missing(model: Model) -> None:
    asked: list[int] = []

    def stop() -> bool:
        """Not before it is begun."""
        asked.append(1)
        return len(asked) > 1

    (part,) = parts_of(model, Making(cancelled=stop))
    assert part.type == "missing"
    assert "stopped after step 1 of 2" in part.value["error"]

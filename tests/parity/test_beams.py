"""Beam search finds what transformers' `generate` finds with as many beams."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hf_models import blip
from test_blip import DEC, PAD, QUESTIONS, TEXTS, example, normalised, pictures, until_end

from sensorium.core.errors import ConfigError
from sensorium.inference.beams import beam_search
from sensorium.inference.engine import Engine
from sensorium.inference.sampling import Sampling
from sensorium.interop.hf import read_hf

LENGTH = 9


def searched(model: Any, prompts: list[Any], beams: int) -> list[list[int]]:
    engine = Engine(model, SimpleNamespace(frames=None, signals={}, stop_ids={PAD}, tokenizer=SimpleNamespace(pad_id=PAD)))  # pyright: ignore[reportArgumentType]
    return engine.generate(prompts, max_tokens=LENGTH, sampling=Sampling(beams=beams))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("beams", [3, 5])
@pytest.mark.parametrize("name", ["BlipForConditionalGeneration", "BlipForQuestionAnswering"])
def test_blip(name: str, beams: int, seed: int, tmp_path: Path) -> None:
    """Prompts of several lengths, alone and together; ends that come early."""
    torch.manual_seed(seed)
    theirs = blip(tmp_path / "hf", name)
    with torch.no_grad():
        # The end is likely enough to come before there is no more room.
        theirs.text_decoder.cls.predictions.bias[PAD] += 1.5 * seed
    theirs.save_pretrained(tmp_path / "hf")
    ours, raw = read_hf(tmp_path / "hf"), pictures(3)
    asks = name == "BlipForQuestionAnswering"
    prompts = QUESTIONS if asks else TEXTS
    wanted: list[list[int]] = []
    for ids, picture in zip(prompts, raw, strict=True):
        given = torch.tensor([ids if asks else [*ids, 0]])
        text = theirs.generate(pixel_values=normalised(picture[None]), input_ids=given, num_beams=beams,
                               max_new_tokens=LENGTH, do_sample=False)[0].tolist()  # fmt: skip
        begin = [DEC] if asks else ids
        assert text[: len(begin)] == begin
        wanted.append(until_end(text[len(begin) :]))
    made = [example(ids, picture) for ids, picture in zip(prompts, raw, strict=True)]
    assert searched(ours, made, beams) == wanted
    assert [searched(ours, [one], beams)[0] for one in made] == wanted
    if seed == 0:
        assert searched(ours, made, 1) != wanted, "a search that finds what needs none"


def test_a_likelier_answer_behind_a_less_likely_beginning() -> None:
    """Greedily 1, whose continuations are all alike; with beams 2, then 3, then the end, 0."""

    def after(token: int) -> list[float]:
        return {1: [0.2] * 5, 2: [0.02, 0.02, 0.02, 0.92, 0.02], 3: [0.96, 0.01, 0.01, 0.01, 0.01]}.get(token, [0.2] * 5)

    def step(last: list[int], rows: torch.Tensor) -> torch.Tensor:
        del rows
        return torch.tensor([after(token) for token in last]).log()

    first = torch.tensor([[0.02, 0.5, 0.44, 0.02, 0.02]] * 2).log()
    assert beam_search(first, step, width=2, max_tokens=4, stops={0}) == [[2, 3]]
    assert beam_search(first[:1], step, width=1, max_tokens=2, stops={0})[0][0] == 1


def test_beams_go_without_chance_and_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="with beams, and chance"):
        Sampling(beams=2, temperature=1.0)
    with pytest.raises(ConfigError, match="beams 0"):
        Sampling(beams=0)
    blip(tmp_path / "hf")
    engine = Engine(read_hf(tmp_path / "hf"), SimpleNamespace(frames=None, signals={}, stop_ids={PAD}))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="piece by piece"):
        next(engine.stream(example(TEXTS[0], pictures(1)[0]), max_tokens=3, sampling=Sampling(beams=2)))

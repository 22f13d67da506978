"""Answers chosen from a list, and the loss of several answers, against BLIP's own rules over transformers' classes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hf_models import blip
from test_blip import DEC, PAD, QUESTIONS, batch_of, example, normalised, pictures
from torch import Tensor
from torch.nn import functional as F

from sensorium.inference.ranking import Ranker, Ranking
from sensorium.interop.hf import read_hf
from sensorium.training.objectives.counting import PerSample
from sensorium.training.objectives.next_token import InstructConfig

CHOICES = [[30, 31, 0], [40, 0], [50, 51, 52, 0], [40, 41, 0], [60, 0], [30, 0], [61, 62, 63, 64, 0], [7, 8, 0]]


class Words(Ranker):
    """Choices are token ids, because the model has no tokenizer."""

    def _learned(self, text: str) -> list[int]:
        return json.loads(text)


def ranker(model: Any, **settings: Any) -> Ranker:
    tokenizer = SimpleNamespace(pad_id=PAD)
    return Words(SimpleNamespace(model=model.eval(), processor=SimpleNamespace(tokenizer=tokenizer),
                                 check=lambda *_: None), Ranking(**settings))  # type: ignore[arg-type]  # fmt: skip


@torch.no_grad()
def decoded(theirs: Any, question: list[int], picture: Tensor, answer: list[int]) -> Tensor:
    """Scores of each token of an answer, and of what follows it."""
    vision = theirs.vision_model(pixel_values=normalised(picture[None])).last_hidden_state
    read = theirs.text_encoder(input_ids=torch.tensor([question]), encoder_hidden_states=vision).last_hidden_state
    return theirs.text_decoder(input_ids=torch.tensor([[DEC, *answer]]), encoder_hidden_states=read).logits[0]


def losses(theirs: Any, question: list[int], picture: Tensor, answer: list[int], smoothing: float) -> Tensor:
    logits = decoded(theirs, question, picture, answer[:-1])
    return F.cross_entropy(logits, torch.tensor(answer), reduction="sum", label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kept", [1, 3, 5, 128])
def test_the_answer_is_the_one_that_their_rule_chooses(kept: int, smoothing: float, tmp_path: Path) -> None:
    torch.manual_seed(kept)
    theirs = blip(tmp_path / "hf", "BlipForQuestionAnswering")
    ours, raw = read_hf(tmp_path / "hf"), pictures(3)
    chooses = ranker(ours, kept=kept, smoothing=smoothing, batch_size=2)
    for question, picture in zip(QUESTIONS, raw, strict=True):
        first = decoded(theirs, question, picture, [])[0].softmax(dim=-1)
        likely = sorted(range(len(CHOICES)), key=lambda i: -float(first[CHOICES[i][0]]))[:kept]
        wanted = {i: -float(losses(theirs, question, picture, CHOICES[i], smoothing)) for i in likely}
        found = chooses.rank(example(question, picture), [json.dumps(ids) for ids in CHOICES])
        assert found.places == sorted(wanted, key=lambda i: -wanted[i])
        assert found.scores == pytest.approx([wanted[i] for i in found.places], abs=1e-4)


def test_the_loss_of_several_answers_is_theirs(tmp_path: Path) -> None:
    """Per question the sum over answers of weight times the sum over words, with smoothed targets."""
    torch.manual_seed(0)
    theirs = blip(tmp_path / "hf", "BlipForQuestionAnswering")
    ours, raw = read_hf(tmp_path / "hf"), pictures(3)
    weights = [[0.6, 0.4], [0.2], [0.5, 0.3, 0.2]]
    answers = [[CHOICES[0], CHOICES[1]], [CHOICES[4]], [CHOICES[6], CHOICES[2], CHOICES[5]]]
    expected, made = 0.0, []
    for question, picture, several, shares in zip(QUESTIONS, raw, answers, weights, strict=True):
        for answer, weight in zip(several, shares, strict=True):
            expected += weight * float(losses(theirs, question, picture, answer, 0.1)) / len(QUESTIONS)
            one = example(question + answer, picture, learned=len(answer))
            one.loss_weight, one.loss_count = weight, 1 / len(several)
            made.append(one)
    word = InstructConfig(smoothing=0.1).build(ours, SimpleNamespace(), [])  # type: ignore[arg-type]
    objective = PerSample(word)
    with torch.no_grad():
        found = objective(ours, batch_of(*made))
    assert found.count == 3
    assert float(found.total) / found.count == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        assert word(ours, batch_of(*made)).count == sum(len(a) for several in answers for a in several)

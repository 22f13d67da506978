"""The encoder-decoders of the matrix against their references, as `test_matrix_function.py` does with decoders: of each
prompt an answer is given, whose logits are compared, and another is written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from anyres_cases import talk
from decoders import PROMPTS, VOCAB, Decoder, blip_eyes, questioned
from hf_models import blip2_t5
from test_matrix_function import LENGTH, SHOWS, Pair, generated

from sensorium.core.batch import Example
from sensorium.inference.engine import Engine
from sensorium.interop.hf import export_hf, import_hf
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.text.byte_tokenizer import byte_tokenizer

SYSTEMS = {
    "blip2-t5": Decoder(partial(blip2_t5, reads=False, vocab=VOCAB), blip_eyes, family="blip-2", without=("blind",)),
    "instructblip-t5": Decoder(
        partial(blip2_t5, reads=True, vocab=VOCAB), blip_eyes, questioned, family="instructblip",
        without=("side by side", "blind"),
    ),
}  # fmt: skip
ANSWERS = dict(zip(PROMPTS, ("yes", "a cat, I think", "no", "two", "all three", "?", ""), strict=True))


class Answered:
    """A prompt with its answer, and the reference's logits of the answer."""

    def __init__(self, how: Decoder, theirs: Any, processor: Processor, title: str) -> None:
        prompt = PROMPTS[title]
        self.title, self.how = title, how
        self.example = processor.encode(talk(prompt, ANSWERS[title]))
        self.asked = processor.encode(talk(prompt), answer_next=True)
        self.inputs = how.inputs(theirs, prompt, self.asked, how.eyes())
        self.logits_TV = self.read(theirs)

    def read(self, theirs: Any) -> torch.Tensor:
        given = self.how.inputs(theirs, PROMPTS[self.title], self.asked, self.how.eyes())
        with torch.no_grad():
            return theirs(**given, labels=torch.tensor([self.answer])).logits[0]

    @property
    def answer(self) -> list[int]:
        return self.example.input_ids[len(self.asked) :]


def processor_of(pair: Pair) -> Processor:
    made = Processor(pair.ours.config, byte_tokenizer())
    made.stop_ids = set()
    return made


@pytest.fixture(scope="module", params=SYSTEMS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    how, folder = SYSTEMS[request.param], tmp_path_factory.mktemp("answers") / "hf"
    torch.manual_seed(0)
    theirs = how.save(folder)
    byte_tokenizer().save(folder)
    how.eyes().save_pretrained(folder)
    return Pair(request.param, folder, theirs, how.read(theirs, folder), {})


@pytest.fixture(scope="module")
def answered(pair: Pair) -> list[Answered]:
    how, processor = SYSTEMS[pair.name], processor_of(pair)
    return [Answered(how, pair.theirs, processor, title) for title in PROMPTS if title not in how.without]


def our_rows(pair: Pair, examples: list[Example], *, pad_left: bool = False) -> list[torch.Tensor]:
    """Logits of each row's answer."""
    batch = collate([[e] for e in examples], pad_id=0, pad_left=pad_left)
    with torch.no_grad():
        logits_BTV = pair.ours.logits(pair.ours(batch).hidden_BTD)
    found: list[torch.Tensor] = []
    for row_TV, learn_T in zip(logits_BTV, batch.learn_BT, strict=True):
        places = learn_T.nonzero()[:, 0] - 1
        found.append(row_TV[places])
    return found


def test_logits(pair: Pair, answered: list[Answered], record: Callable[..., None]) -> None:
    for case in answered:
        assert case.example.input_ids[: len(case.asked)] == case.asked.input_ids
        (got_TV,) = our_rows(pair, [case.example])
        record(pair.name, *SHOWS.get(case.title, ()), ours=got_TV, theirs=case.logits_TV)
    for left in (False, True):
        rows = our_rows(pair, [case.example for case in answered], pad_left=left)
        for got_TV, case in zip(rows, answered, strict=True):
            record(pair.name, "left" if left else "right", ours=got_TV, theirs=case.logits_TV)


def test_greedy_text(pair: Pair, answered: list[Answered], record: Callable[..., None]) -> None:
    engine = Engine(pair.ours, processor_of(pair))
    together = engine.generate([case.asked for case in answered], max_tokens=LENGTH)
    for case, got in zip(answered, together, strict=True):
        assert got == generated(pair.theirs, case)
        assert engine.generate([case.asked], max_tokens=LENGTH) == [got]
    assert len({tuple(text) for text in together}) > 1
    record(pair.name, "greedy")


def test_export(pair: Pair, answered: list[Answered], tmp_path: Path, record: Callable[..., None]) -> None:
    """The reference loads what is written by a config made of ours, and agrees."""
    import_hf(pair.folder, tmp_path / "ours")
    (tmp_path / "ours" / "foreign.json").unlink()
    export_hf(tmp_path / "ours", tmp_path / "back", SYSTEMS[pair.name].family)
    again, info = type(pair.theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for case in answered:
        (got_TV,) = our_rows(pair, [case.example])
        record(pair.name, "export", ours=got_TV, theirs=case.read(again.eval()))

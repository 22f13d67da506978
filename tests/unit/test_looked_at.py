"""What a benchmark does not look at is not made for it, and the text of answers is the same without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import test_picture_words_corners as picture_words
import test_told_hands as told_hands

from sensorium.api import Model
from sensorium.core.responder import Request, without_media
from sensorium.core.sample import parse_messages
from sensorium.evaluation.benchmarks import BENCHMARKS
from sensorium.evaluation.benchmarks.vqa_file import VqaFile
from sensorium.evaluation.runner import Result, run_benchmark

told = told_hands.model
model, says = picture_words.model, picture_words.says
NOTHING: Any = frozenset()


@pytest.mark.parametrize("shows", [False, True])
def test_neither_the_model_nor_the_blind_one_makes_what_nobody_looks_at(
    told: Model, shows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = told_hands.Painter()
    told.network.generators.put("image", made)  # pyright: ignore[reportArgumentType]
    row = {"messages": [{"role": "user", "content": "draw"}, {"role": "assistant", "content": "A ball and"}]}
    (tmp_path / "q.jsonl").write_text("\n".join([json.dumps(row)] * 3))
    ids = told_hands.ids_of(told, "A ball", told_hands.MARKS[0], "red", told_hands.MARKS[1], " and")
    monkeypatch.setattr(told.engine, "generate", lambda prompts, **_: [ids] * len(prompts))
    result: Result = run_benchmark(VqaFile(path=str(tmp_path / "q.jsonl"), shows=shows), told.engine)
    assert len(made.told) == (6 if shows else 0)
    assert result.scores["model"]["accuracy"] == result.scores["blind"]["accuracy"] == 1.0
    kinds = ["text", "image", "text"] if shows else ["text", "text"]
    assert all([part.type for part in answer.parts] == kinds for who in ("model", "blind") for answer in result.answers[who])


def test_a_picture_written_as_tokens_is_not_decoded(model: Model, says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokens are written, because the text goes on behind them."""
    asked = Request("a", parse_messages(picture_words.ASK), len(picture_words.frame_of(model)) + 2)
    says()
    (whole,) = model.engine.respond([asked])
    monkeypatch.setattr(model.network.picture_tokenizer, "decode", lambda *_: pytest.fail("it was decoded"))
    says()
    (text,) = model.engine.respond([Request("a", asked.messages, asked.max_tokens, makes=NOTHING)])
    assert (text.text, text.tokens) == (whole.text, whole.tokens)
    assert [part for part in whole.parts if part.type == "text"] == list(text.parts)
    assert len(whole.parts) == len(text.parts) + 1
    # Nor is one that had no room missing.
    says()
    (cut,) = model.engine.respond([Request("a", asked.messages, 3, makes=NOTHING)])
    assert [part.type for part in cut.parts] == ["text"]


def test_each_benchmark_says_what_it_looks_at() -> None:
    looked = {name: BENCHMARKS.find(name) for name in ("naming", "finding", "pointing", "drawing")}
    assert {name: set(found().looks_at) for name, found in looked.items()} == {
        "naming": set(), "finding": set(), "pointing": {"mask"}, "drawing": {"image"}}  # fmt: skip
    assert without_media(Request("a", (), makes=NOTHING)).makes == NOTHING

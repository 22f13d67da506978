"""Answers chosen from a list, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sensorium.api import Model, find_model, load
from sensorium.cli.main import app
from sensorium.core.choices import read_choices
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.responder import Request
from sensorium.core.sample import parse_messages
from sensorium.inference.ranking import Ranker, Ranking

CHOICES = ("a red fox", "cat", "a map of the world", "yes", "a cathedral", "no", "a red bird")


@pytest.fixture(scope="module")
def nano() -> Model:
    return load("nano", "cpu")


@pytest.fixture
def read_once(nano: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands take the weights that are in memory: that they can read them is shown elsewhere."""
    monkeypatch.setattr("sensorium.interop.saved.load_model", {find_model("nano"): (nano.network, nano.tokenizer)}.__getitem__)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("asked") / "red.png"
    Image.new("RGB", (40, 24), (200, 30, 40)).save(path)
    return path


@pytest.fixture(scope="module")
def wanted(nano: Model, picture: Path) -> list[float]:
    return likelihoods(nano, picture)


def command(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def asked(picture: Path, question: str = "What is this?") -> list[dict[str, Any]]:
    content = [{"type": "image", "image": str(picture)}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def likelihoods(model: Model, picture: Path) -> list[float]:
    """Of every choice, from the scores of the whole conversation."""
    out: list[float] = []
    for choice in CHOICES:
        scored = model.logits([*asked(picture), {"role": "assistant", "content": choice}])
        ids, learn = torch.tensor(scored.token_ids)[1:], torch.tensor(scored.learn)[1:]
        each = scored.logits_TV[:-1].log_softmax(dim=-1).gather(1, ids[:, None])[:, 0]
        out.append(float(each[learn].sum()))
    return out


@pytest.mark.usefixtures("read_once")
def test_the_likeliest_is_chosen(nano: Model, picture: Path, wanted: list[float], tmp_path: Path) -> None:
    order = sorted(range(len(CHOICES)), key=lambda i: -wanted[i])
    found = Ranker(nano.engine, Ranking(batch_size=3)).rank(nano.processor.prompt(parse_messages(asked(picture))), CHOICES)
    assert found.places == order
    assert found.scores == pytest.approx([wanted[i] for i in order], abs=1e-4)
    (tmp_path / "answers.txt").write_text("\n".join([*CHOICES, "", "cat"]), encoding="utf-8")
    (tmp_path / "answers.json").write_text(json.dumps(CHOICES), encoding="utf-8")
    words = ("ask", str(picture), "What is this?", "--device", "cpu", "--choices")
    assert command(*words, str(tmp_path / "answers.txt")).strip() == CHOICES[order[0]]
    said = json.loads(command(*words, str(tmp_path / "answers.json"), "--json"))
    assert said["answer"] == CHOICES[order[0]]
    assert [one["text"] for one in said["choices"]] == [CHOICES[i] for i in order[:5]]


@pytest.mark.usefixtures("read_once")
def test_eval_ranks_what_questions_list(picture: Path, wanted: list[float], tmp_path: Path) -> None:
    row = {"messages": [*asked(picture), {"role": "assistant", "content": "cat"}]}
    (tmp_path / "q.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (tmp_path / "answers.txt").write_text("\n".join(CHOICES), encoding="utf-8")
    benchmark = f"vqa_file:path={tmp_path / 'q.jsonl'},choices={tmp_path / 'answers.txt'}"
    command("eval", benchmark, "--device", "cpu", "--rank", "128", "--out", str(tmp_path / "out"))
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["benchmarks"]["vqa_file"]["rows"][0]["model"] == CHOICES[wanted.index(max(wanted))]
    (without,) = (tmp_path / "q.jsonl",)
    with pytest.raises(DataError, match="lists no answers to choose from"):
        command("eval", f"vqa_file:path={without}", "--device", "cpu", "--rank", "3", "--out", str(tmp_path / "out"))


def test_choosing_refuses_by_name(nano: Model, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "answers.txt").write_text("cat\n", encoding="utf-8")
    words = ("ask", str(picture), "?", "--model", "no such", "--choices", str(tmp_path / "answers.txt"))
    for option in (("--temperature", "0.5"), ("--beams", "3")):
        with pytest.raises(ConfigError, match=f"{option[0]} .* with --choices"):
            command(*words, *option)
    for rank in (("--rank", "-1"), ("--rank", "5", "--beams", "2")):
        with pytest.raises(ConfigError, match="--rank"):
            command("eval", "--model", "no such", "--out", str(tmp_path), *rank)
    with pytest.raises(ConfigError, match="ranking with"):
        Ranker(nano.engine, Ranking(kept=0))
    with pytest.raises(DataError, match="answer ' '"):
        next(Ranker(nano.engine).respond([Request("a", parse_messages(asked(picture)), choices=(" ",))]))


@pytest.mark.parametrize(("name", "content"), [("a.txt", "\n"), ("a.json", "{}"), ("a.json", "[1]"), ("a.json", "["), ("b", None)])
def test_a_file_without_answers_is_refused(name: str, content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="list of answers") as caught:
        read_choices(tmp_path / name)
    assert name in str(caught.value)

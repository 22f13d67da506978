"""Are drawings asked for and judged as is said? What is held out stays out, controls are controls, distances are distances.

Shape legend: N vectors, D width, K classes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.cli.evaluating import print_table, summary
from sensorium.core.errors import DataError
from sensorium.core.responder import Answer, Redrawn
from sensorium.core.sample import Part
from sensorium.data import drawn
from sensorium.data.drawn import (
    NAMES,
    NEW_REQUESTS,
    REQUESTS,
    DrawnScenesSource,
    describe,
    shape_names,
    shape_pairs,
)
from sensorium.data.scenes import COLORS, SHAPES
from sensorium.evaluation.benchmarks import drawing
from sensorium.evaluation.benchmarks.drawing import DrawingBenchmark
from sensorium.evaluation.judge import Schooling, train_judge
from sensorium.evaluation.metrics.frechet import frechet
from sensorium.evaluation.metrics.interval import wilson
from sensorium.evaluation.report import write_report
from sensorium.evaluation.runner import run_benchmark

FEW = DrawnScenesSource(count=50)


def test_what_is_held_out_is_described_in_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    held, known = shape_names("heldout"), shape_names("train")
    assert sorted(held + known) == sorted(NAMES)
    assert {name.split()[0] for name in held} == set(COLORS)
    assert {name.split()[1] for name in held} == set(SHAPES)
    new, old = shape_pairs("heldout", 10**6), shape_pairs("train", 10**6)
    assert not set(new) & set(old)
    assert not {name for pair in new + old for name in pair} & set(held)
    monkeypatch.setattr(drawn, "draw", lambda described: Image.new("RGB", (8, 8)))
    source = DrawnScenesSource(count=600).open()
    texts = {source[i].messages[0].text for i in range(600)}
    assert not [text for text in texts if any(name in text for name in held)]
    assert len(texts) < 2 * len(known) + 300
    assert not set(REQUESTS) & set(NEW_REQUESTS)
    asked = [item.request.messages[0].text for item in DrawingBenchmark(count=60).items()]
    assert not set(asked) & texts
    assert source[5].messages[0].text == source[5].messages[0].text


def test_shapes_lie_apart_and_inside() -> None:
    for seed in range(40):
        one, other = describe(random.Random(seed), ("red circle", "blue star")).scene.things
        assert np.hypot(one.x - other.x, one.y - other.y) > one.half + other.half
        assert all(t.half <= t.x <= 1 - t.half and t.half <= t.y <= 1 - t.half for t in (one, other))


def test_frechet_of_gaussians_is_known() -> None:
    """In one dimension (m1 - m2)^2 + (s1 - s2)^2; of independent dimensions the sum."""
    rng = np.random.default_rng(0)
    plain_ND = rng.standard_normal((4000, 3))
    plain_ND = (plain_ND - plain_ND.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(plain_ND, rowvar=False))).T
    scaled_ND = plain_ND * np.array([2.0, 1.0, 0.5]) + np.array([0.0, 3.0, 0.0])
    assert frechet(plain_ND, plain_ND) == pytest.approx(0, abs=1e-9)
    assert frechet(plain_ND, scaled_ND) == pytest.approx(1 + 9 + 0.25, rel=1e-6)
    turned_DD = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    assert frechet(plain_ND @ turned_DD, scaled_ND @ turned_DD) == pytest.approx(10.25, rel=1e-6)
    assert frechet(plain_ND[:, :1] * 3, plain_ND[:, :1]) == pytest.approx(4, rel=1e-6)
    with pytest.raises(DataError, match="sets of 1 and 5 vectors"):
        frechet(plain_ND[:1], plain_ND[:5])


def test_a_judge_is_the_same_each_time_and_learns() -> None:
    pictures = [Image.new("RGB", (64, 64), color) for color in ("red", "blue", "white", "black") for _ in range(4)]
    shares_NK = torch.eye(4).repeat_interleave(4, 0)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    judge = train_judge(pictures, shares_NK, Schooling(epochs=4, batch_size=8, lr=1e-2))
    assert torch.equal(torch.get_rng_state(), before), "it draws from everyone's random numbers"
    scores_NK, features_ND = judge.seen(pictures[::4])
    assert scores_NK.argmax(1).tolist() == [0, 1, 2, 3]
    assert features_ND.shape == (4, 64)
    torch.manual_seed(2)
    again = train_judge(pictures, shares_NK, Schooling(epochs=4, batch_size=8, lr=1e-2))
    assert torch.equal(again.seen(pictures[::4])[0], scores_NK)


class Knows:
    """A judge that was told what it looks at."""

    def __init__(self) -> None:
        self.names: dict[int, Sequence[str]] = {}
        self.kept: list[Image.Image] = []
        """An `id` is of one picture only as long as that is kept."""

    def seen(self, pictures: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        scores_NK = torch.zeros(len(pictures), len(NAMES))
        for i, picture in enumerate(pictures):
            scores_NK[i, [NAMES.index(name) for name in self.names.get(id(picture), ())]] = 1
        return scores_NK, torch.arange(len(pictures) * 2.0).view(-1, 2)


class Draws:
    """Draws the colour and shape that are asked for, but every third time another colour; and says something where it is told to."""

    def __init__(self, judge: Knows, gold: dict[str, Sequence[str]], *, silent: Sequence[str] = ()) -> None:
        self.judge, self.gold, self.pictures, self.seeds = judge, gold, list[Any](), list[int]()
        self.silent = silent

    def respond(self, requests: Any) -> Any:
        for request in requests:
            if request.id in self.silent:
                yield Answer(request.id, "A shape.", 3)
                continue
            picture, names = Image.new("RGB", (8, 8)), list(self.gold[request.id])
            if len(self.pictures) % 3 == 0:
                color, _, shape = names[0].partition(" ")
                names[0] = f"{'pink' if color != 'pink' else 'gray'} {shape}"
            self.judge.names[id(picture)] = names
            self.pictures.append(picture)
            self.seeds.append(request.seed)
            yield Answer(request.id, "", 6, (Part("image", picture),))


def test_scores_are_shares_of_what_the_judge_sees(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    judge = Knows()
    monkeypatch.setattr(drawing, "_judge", lambda *_: judge)
    monkeypatch.setattr(drawing, "draw", lambda described: Image.new("RGB", (8, 8)))
    monkeypatch.setattr(drawn, "draw", lambda described: Image.new("RGB", (8, 8)))
    config = DrawingBenchmark(count=30, trained_on=FEW, neighbours=20)
    items = config.items()
    responder = Draws(judge, {item.request.id: item.gold for item in items})
    result = run_benchmark(config, responder)
    scores = result.scores["model"]
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["unseen_colour"] == 0  # Each third item, beginning with the first.
    assert scores["unseen_pair"] == scores["unseen_words"] == 1
    assert scores["right_shapes"] == 1
    assert scores["right_colours"] == pytest.approx(2 / 3)
    assert scores["drawn"] == 1
    assert result.scores["blind"]["accuracy"] < 0.2
    assert len(responder.pictures) == 30, "the control draws anew"
    assert len(set(responder.seeds)) == 30
    assert set(result.scores) == {"model", "blind", "constant", "real"}
    own, given = ([answer.parts[0].value for answer in result.answers[who]] for who in ("model", "blind"))
    assert not any(a is b for a, b in zip(own, given, strict=True)), "somebody got an own picture back"
    assert sorted(map(id, own)) == sorted(map(id, given))
    result.sheets = config.sheets(items, result.answers["model"], tmp_path)
    assert Image.open(tmp_path / "drawing.png").size == (8 * 96, 4 * 118)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Knows:
    """The judge, of drawings that cost nothing; a real picture's names are told to it as it is drawn."""
    judge = Knows()

    def real(described: drawn.Described) -> Image.Image:
        picture = Image.new("RGB", (8, 8))
        judge.kept.append(picture)
        judge.names[id(picture)] = described.names
        return picture

    monkeypatch.setattr(drawing, "_judge", lambda *_: judge)
    monkeypatch.setattr(drawing, "draw", real)
    monkeypatch.setattr(drawn, "draw", lambda described: Image.new("RGB", (8, 8)))
    return judge


def test_each_kind_of_description_stands_beside_its_own_chance(told: Knows, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = DrawingBenchmark(count=60)
    items = config.items()
    # Every second description of an unseen pair is answered in words.
    pairs = [item for item in items if "unseen_pair" in item.tags]
    silent = [item.request.id for item in pairs[::2]]
    result = run_benchmark(config, Draws(told, {item.request.id: item.gold for item in items}, silent=silent))
    assert result.groups() == {"unseen_colour": 20, "unseen_pair": 20, "unseen_words": 20, "held_out": 40}
    for who, answers in result.answers.items():
        right = [config.right(item, answer) for item, answer in zip(items, answers, strict=True)]
        for group, tags in {"unseen_words": ["unseen_words"], "held_out": ["unseen_colour", "unseen_pair"]}.items():
            marks = [mark for mark, item in zip(right, items, strict=True) if set(tags) & set(item.tags)]
            assert result.scores[who][group] == pytest.approx(sum(marks) / len(marks)), (who, group)
    scores = result.scores["model"]
    assert (scores["drawn_unseen_pair"], scores["drawn_held_out"], scores["drawn_unseen_words"]) == (0.5, 0.75, 1)
    assert scores["held_out"] == pytest.approx((scores["unseen_colour"] + scores["unseen_pair"]) / 2)
    # Ten unseen coloured shapes in turn: the first item's picture is right for each tenth of them, and for nothing else.
    constant = result.scores["constant"]
    assert [constant[name] for name in ("unseen_colour", "unseen_pair", "held_out")] == pytest.approx([0.1, 0, 0.05])
    assert [scores[f"chance_{name}"] for name in ("unseen_colour", "unseen_pair", "held_out")] == pytest.approx([0.1, 0.05, 0.05])
    # Of known shapes, drawn at random, the first picture shows none, and the commonest comes more than once.
    assert constant["unseen_words"] == 0 < scores["chance_unseen_words"]
    assert result.to_json()["groups"]["held_out"]["interval_95"]["constant"] == pytest.approx(wilson(2, 40))
    print_table(summary("m", [result]))
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.strip().startswith("held out")]
    low, high = wilson(scores["held_out"] * 40, 40)
    expected = [f"{scores['held_out']:.1%}", f"{low:.1%}", "-", f"{high:.1%}", f"{result.scores['blind']['held_out']:.1%}", "5.0%", "40"]
    assert line.split()[2:] == expected
    write_report("drawing", [("m", [result])], tmp_path / "report.html")
    assert f"drawing (held out)</td><td class=n><b>{scores['held_out']:.1%}</b>" in (tmp_path / "report.html").read_text()


def test_a_group_that_a_limit_leaves_empty_has_no_score(told: Knows) -> None:
    config = DrawingBenchmark(limit=1)
    (item,) = config.items()
    scores = config.scores([item], [Answer(item.request.id, "")])
    assert config.groups([item]) == {"unseen_colour": 1, "held_out": 1}
    assert "unseen_pair" not in scores
    assert scores["held_out"] == scores["drawn"] == 0


def test_the_sheet_shows_the_first_answers_whether_they_drew_or_not(told: Knows, tmp_path: Path) -> None:
    config = DrawingBenchmark(count=70, trained_on=FEW, neighbours=5)
    items = config.items()
    picture = Image.new("RGB", (64, 64), (0, 200, 0))
    answers = [Answer(item.request.id, "A shape.") if i % 5 == 1 else Answer(item.request.id, "", 0, (Part("image", picture),))
               for i, item in enumerate(items)]  # fmt: skip
    said = config.sheets(items, answers, tmp_path)
    assert said["without_picture"] == 13
    sheet = np.asarray(Image.open(tmp_path / "drawing.png").convert("RGB"))
    assert sheet.shape == (8 * 118, 8 * 96, 3)
    for i in range(64):
        y, x = i // 8 * 118, i % 8 * 96
        cell_HWC = sheet[y + 4 : y + 92, x + 4 : x + 92]
        if i % 5 == 1:
            assert not (cell_HWC == (0, 200, 0)).all(-1).any(), i
            assert 0.01 < (cell_HWC < 200).any(-1).mean() < 0.2, "a few words on white"
        else:
            assert (cell_HWC == (0, 200, 0)).all(), i
    nobody = config.sheets(items, [Answer(item.request.id, "") for item in items], tmp_path / "none")
    assert nobody == {"files": ["drawing.png"], "without_picture": 64}
    assert Image.open(tmp_path / "none" / "drawing.png").size == (8 * 96, 8 * 118)


class Redraws(Draws):
    """Draws, too, by four codes: of the n-th picture n's remainder by three, so that one of them is never used."""

    by = 4

    def redraw(self, pictures: Sequence[Any]) -> Redrawn:
        ids = [[i % 3] * 2 for i in range(len(pictures))] if self.by else []
        return Redrawn(list(pictures), ids, self.by)


def test_use_of_the_codebook_is_that_of_real_pictures(told: Knows, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = DrawingBenchmark(count=30)
    items = config.items()
    result = run_benchmark(config, Redraws(told, {item.request.id: item.gold for item in items}))
    scores = result.scores["model"]
    assert scores["codes_used"] == 0.75
    assert scores["code_perplexity"] == pytest.approx(3)
    assert scores["codes"] == 4
    assert result.scores["redrawn"]["accuracy"] == 1, "pictures that came back as they were"
    assert not any("code_perplexity" in result.scores[who] for who in result.scores if who != "model")
    result.sheets = {"said": ["nearest: 0.5 < 0.6"]}
    found = json.loads(json.dumps(summary("m", [result])))
    print_table(found)
    shown = capsys.readouterr().out
    assert "codes used / perplexity / codes 75.0% / 3 / 4" in shown
    assert f"best one picture, of each line above {scores['chance_accuracy']:.1%} / " in shown
    assert shown.splitlines()[-1].strip() == "nearest: 0.5 < 0.6"
    write_report("drawing", [("m", [result])], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<td>codes_used</td><td class=n>75.0%</td>" in page
    assert "<td>code_perplexity</td><td class=n>3</td>" in page
    assert "<p>nearest: 0.5 &lt; 0.6</p>" in page


def test_who_draws_by_no_codes_has_no_use_of_them(told: Knows, capsys: pytest.CaptureFixture[str]) -> None:
    config = DrawingBenchmark(count=6)
    gold: dict[str, Sequence[str]] = {item.request.id: item.gold for item in config.items()}
    diffuses = Redraws(told, gold)
    diffuses.by = 0
    for responder in (Draws(told, gold), diffuses):
        result = run_benchmark(config, responder)
        assert "codes_used" not in result.scores["model"]
        print_table(summary("m", [result]))
        assert "codes used" not in capsys.readouterr().out
    assert set(result.scores) == {"model", "blind", "constant", "real", "redrawn"}

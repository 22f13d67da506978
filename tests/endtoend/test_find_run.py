"""A model learns to find pictures, its index is made, and it answers with a picture of it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sensorium.api import Model, load
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.cli.main import app
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.hands import Making
from sensorium.core.sample import parse_sample
from sensorium.encoders import ENCODERS
from sensorium.generators import found_pictures
from sensorium.generators.retrieval_index import RetrievalIndex
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.training.config import Recipe
from sensorium.training.log import read_log

CAPTIONS = {"red.png": "ball", "green.png": "hill", "blue.png": "sea", "grey.png": "cat"}
COLOURS = {"red.png": (230, 20, 20), "green.png": (20, 200, 30), "blue.png": (20, 30, 220), "grey.png": (120, 120, 120)}


def recipe(folder: Path) -> Recipe:
    (folder / "pictures").mkdir()
    rows: list[str] = []
    for name, caption in CAPTIONS.items():
        Image.new("RGB", (32, 24), COLOURS[name]).save(folder / "pictures" / name)
        rows.append(json.dumps({"messages": [
            {"role": "user", "content": [{"type": "image", "image": f"pictures/{name}"}]}, {"role": "assistant", "content": caption}]}))  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join(rows))
    arch = CausalLMConfig.tiny().arch | {"vocab_size": 264}
    encoder = ENCODERS.find("clip").tiny().model_copy(update={"feature": "pooled", "select_layer": None})
    return Recipe.from_dict({
        "name": "finds",
        "model": {
            "lanes": {"image": {"encoder": encoder.to_dict(), "projector": {"kind": "linear"}}},
            "backbone": {"kind": "causal_lm", "arch": arch, "tokenizer": "bytes", "added_tokens": ["[RET]"]},
            "hands": {"image": {"signals": ["[RET]"], "projector": {"kind": "retrieval", "image_width": 32},
                                "generator": {"kind": "retrieval_index", "width": 16}}},
            "template": "bare",
        },
        "stages": [{
            "name": "pairs", "objective": {"kind": "retrieve"}, "steps": 50, "batch_size": 4,
            "data": [{"kind": "file", "path": str(folder / "rows.jsonl")}],
            "learns": [{"part": part, "lr": 1e-2} for part in ("backbone", "projectors.image", "hands.image")],
        }],
    })  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finds")
    (folder / "finds.yaml").write_text(json.dumps(recipe(folder).to_dict()))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("train", "finds.yaml", "--out", "run")
        (folder / "pictures" / "broken.jpg").write_bytes(b"no picture")
        told = json.loads(run("index", "build", "run", "pictures", "--json"))
    assert told["pictures"] == len(CAPTIONS)
    assert "broken.jpg" in told["left_out"][0]
    (folder / "pictures" / "broken.jpg").unlink()
    return folder


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def pictures_of(model: Model, asked: str, **options: Any) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(part.value) for part in model.answer(asked, **options).content if part.type == "image"]


def missing_of(model: Model, **options: Any) -> str:
    """Why an answer lacks what it lacks."""
    (error,) = [part.value["error"] for part in model.answer(CAPTIONS["red.png"], **options).content if part.type == "missing"]
    return error


def test_it_learns_and_answers_with_the_right_picture(trained: Path, tmp_path: Path) -> None:
    log = [line for line in read_log(trained / "run" / "log.jsonl") if "contrast" in line]
    assert log[-1]["contrast"] < 0.3 * log[0]["contrast"]
    assert log[-1]["text"] < 0.3 * log[0]["text"]
    model = load(trained / "run", "cpu")
    for name, caption in CAPTIONS.items():
        (picture,) = pictures_of(model, caption, max_tokens=1)
        assert np.array_equal(picture, np.asarray(Image.open(trained / "pictures" / name)))
    # A picture that was shown is not shown again.
    first, second = pictures_of(model, CAPTIONS["red.png"], max_tokens=1), pictures_of(
        model, CAPTIONS["red.png"], max_tokens=1, making=Making(without=("red.png",)))  # fmt: skip
    assert not np.array_equal(first[0], second[0])
    out = tmp_path / "answer"
    said = json.loads(run("ask", str(trained / "pictures" / "grey.png"), CAPTIONS["red.png"], "--model", str(trained / "run"),
                          "--max-tokens", "3", "--save", str(out), "--json"))  # fmt: skip
    assert "image" in said["parts"]
    assert all((out / name).exists() for name in said["files"])
    # Which file of the index it is, and how near, is in all that is said of it.
    number, told = next((i, one) for i, one in enumerate(said["content"], start=1) if one["type"] == "image")
    assert told["source"]["file"] == "red.png"
    assert 0.5 < told["source"]["similarity"] <= 1
    (_, answer) = parse_sample(json.loads((out / "sample.json").read_text())).messages
    assert answer.content[number - 1].to_json() == told
    printed = run("ask", CAPTIONS["red.png"], "--model", str(trained / "run"), "--max-tokens", "1", "--save", str(tmp_path / "again")).splitlines()
    assert re.fullmatch(r"part1\.png: found, red\.png \(similarity 0\.\d\d\)", printed[-1])


def test_two_pictures_of_one_answer_are_two(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(trained / "run", "cpu")
    (ret,) = model.processor.signals["image"]
    monkeypatch.setattr(model.engine, "generate", lambda *_, **__: [[ret] * 4])
    found = pictures_of(model, CAPTIONS["red.png"])
    assert len({picture.tobytes() for picture in found}) == 4
    monkeypatch.setattr(model.engine, "generate", lambda *_, **__: [[ret] * 5])
    assert len(pictures_of(model, CAPTIONS["red.png"])) == 4
    assert missing_of(model).endswith("all 4 pictures of the index are shown already")


def test_index_and_pictures_move_together_and_what_is_lost_is_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Path(shutil.copytree(trained, tmp_path / "moved"))
    index = moved / "run" / "model" / "generators" / "image"
    assert RetrievalIndex.open(index).root == (moved / "pictures").resolve()
    assert len(pictures_of(load(moved / "run", "cpu"), CAPTIONS["red.png"], max_tokens=1)) == 1
    model = load(moved / "run", "cpu")
    whole = [picture.tobytes() for picture in pictures_of(model, CAPTIONS["blue.png"], max_tokens=1)]
    second = [picture.tobytes() for picture in pictures_of(model, CAPTIONS["blue.png"], max_tokens=1, making=Making(without=("blue.png",)))]
    (moved / "pictures" / "blue.png").unlink()
    model = load(moved / "run", "cpu")
    # The next best takes its place, and standard error says so, once.
    assert [picture.tobytes() for picture in pictures_of(model, CAPTIONS["blue.png"], max_tokens=1)] == second != whole
    assert len(pictures_of(model, CAPTIONS["red.png"], max_tokens=1)) == 1
    said = capsys.readouterr().err
    assert said.count("1 of the index's 4 files are gone") == 1
    assert "blue.png. To mend it: bring them back, or build the index again" in said
    asked = CliRunner().invoke(app, ["ask", str(moved / "pictures" / "red.png"), CAPTIONS["blue.png"], "--model", str(moved / "run"),
                                     "--max-tokens", "3", "--save", str(tmp_path / "answer")])  # fmt: skip
    assert asked.exit_code == 0
    assert "blue.png" in asked.stderr
    for name in ("red.png", "green.png", "grey.png"):
        (moved / "pictures" / name).rename(tmp_path / name)
    assert "all of the index's 4 files are gone: " in missing_of(load(moved / "run", "cpu"), max_tokens=1)
    (index / "embeddings.safetensors").unlink()
    said = missing_of(load(moved / "run", "cpu"), max_tokens=1)
    assert "embeddings.safetensors" in said
    assert "not readable" in said
    shutil.rmtree(index)
    assert "sensorium index build" in missing_of(load(moved / "run", "cpu"), max_tokens=1)


def test_pictures_that_were_damaged_later_are_passed_over_and_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = Path(shutil.copytree(trained, tmp_path / "moved"))
    model = load(moved / "run", "cpu")
    second = pictures_of(model, CAPTIONS["blue.png"], max_tokens=1, making=Making(without=("blue.png",)))
    monkeypatch.setattr(found_pictures, "NAMED", 2)
    for damaged in ("blue.png", *(name for name in CAPTIONS if name != "blue.png")):
        whole = (moved / "pictures" / damaged).read_bytes()
        (moved / "pictures" / damaged).write_bytes(whole[: len(whole) // 2])
        if damaged == "blue.png":
            for _ in range(2):
                assert np.array_equal(pictures_of(model, CAPTIONS["blue.png"], max_tokens=1), second)
            said = capsys.readouterr().err
            assert said.count("passed over for the next best: ") == 1
            assert "blue.png" in said
            assert "To mend it: bring them back" in said
    assert "none of the index's 4 files can be read: blue.png, " in missing_of(model, max_tokens=1)
    named, *further = capsys.readouterr().err.splitlines()
    assert "damaged picture" in named
    assert further == ["passed over for the next best: more that cannot be read, which are not named here"]
    # By the command: it names the file, shows another, and ends well.
    (moved / "pictures" / "red.png").write_bytes((trained / "pictures" / "red.png").read_bytes())
    asked = CliRunner().invoke(app, ["ask", CAPTIONS["blue.png"], "--model", str(moved / "run"), "--max-tokens", "1", "--save", str(tmp_path / "answer")])
    assert asked.exit_code == 0
    assert "blue.png" in asked.stderr
    assert "found, red.png" in asked.stdout


def test_what_cannot_be_indexed_is_said(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    network, tokenizer = build_pretrained(recipe(tmp_path).model.model_copy(update={"hands": {}}))
    save_model(network, tokenizer, tmp_path / "seeing", learnt=set())
    for words, error, message in (
        ((str(tmp_path / "seeing"), str(trained / "pictures")), ConfigError, "finds no pictures"),
        ((str(trained / "run"), str(tmp_path / "none")), DataError, "no such folder"),
        ((str(trained / "run"), str(tmp_path / "empty")), DataError, "no pictures"),
    ):
        done = CliRunner().invoke(app, ["index", "build", *words, "--out", str(tmp_path / "index")])
        assert isinstance(done.exception, error)
        assert message in str(done.exception)
    assert not (tmp_path / "index").exists()

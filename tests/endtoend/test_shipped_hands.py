"""The shipped models that point and draw, as they lie in the package: right on easy things, and small."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import sensorium
from sensorium.api import load
from sensorium.cli.main import app
from sensorium.core.errors import DataError, WeightsError
from sensorium.core.hands import Made, Making
from sensorium.core.masks import read_mask
from sensorium.core.responder import Request
from sensorium.core.sample import Message, Part, parse_messages, parse_sample
from sensorium.data.scenes import CANVAS_PX, COLORS, Scene, Thing, draw_scene
from sensorium.interop.onto import DIFFERENCE
from sensorium.interop.shipped import SHIPPED

MIB = 2**20
HANDS = sorted(set(SHIPPED) - {"nano"})
needs_diffusers = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")


@pytest.fixture(scope="module", autouse=True)
def _unpacked() -> None:
    """nano's parts lie in the cache: on a new machine whoever loads it first is told of their unpacking on standard error."""
    sensorium.load("nano", "cpu")


def scene(shape: str, color: str, x: float = 0.6, y: float = 0.4) -> Image.Image:
    return draw_scene(Scene((Thing(shape, color, x, y, 0.25),), (255, 255, 255)))


@pytest.mark.parametrize("name", HANDS)
def test_it_is_a_small_difference_from_nano_with_a_card(name: str) -> None:
    folder = SHIPPED[name]
    sizes = {file.name: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    assert {"config.json", DIFFERENCE, "README.md"} <= set(sizes)
    assert sum(sizes.values()) < 5 * MIB
    assert json.loads((folder / "config.json").read_text())["onto"] == "nano"


def test_nano_points_says_where_a_thing_is_and_cuts_it_out(tmp_path: Path) -> None:
    scene("star", "green").save(tmp_path / "star.png")
    asked = ["ask", str(tmp_path / "star.png"), "Where is the star?", "--model", "nano-points", "--save", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (_, answer) = parse_sample(json.loads((tmp_path / "out" / "sample.json").read_text())).messages
    told = next(part.value for part in answer.content if part.type == "boxes")
    x0, y0, x1, y1 = (told["places"] if isinstance(told, dict) else told)[0]
    true = np.array([0.35, 0.15, 0.85, 0.65]) * CANVAS_PX
    shared = max(0, min(x1, true[2]) - max(x0, true[0])) * max(0, min(y1, true[3]) - max(y0, true[1]))
    assert shared / ((x1 - x0) * (y1 - y0) + (true[2] - true[0]) ** 2 - shared) > 0.5
    assert sum(part.type == "mask" for part in answer.content) == 1


@pytest.mark.skipif(importlib.util.find_spec("espeakng_loader") is None, reason="espeakng_loader is not installed")
def test_a_box_is_spoken_and_what_was_saved_is_data_again(tmp_path: Path) -> None:
    scene("star", "green", 0.25, 0.25).save(tmp_path / "star.png")
    asked = ["ask", str(tmp_path / "star.png"), "Where is the star?", "--model", "nano-points", "--save", str(tmp_path / "out"), "--speak"]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == "It is at the top left."
    saved = json.loads((tmp_path / "out" / "sample.json").read_text())["messages"][-1]["content"]
    assert saved[-1] == {"type": "audio", "audio": "part3.wav", "prompt": "It is at the top left.", "speech": True}
    assert (tmp_path / "out" / "part3.wav").stat().st_size > 1000
    checked = CliRunner().invoke(app, ["data", "check", str(tmp_path / "out" / "sample.json"), "--model", "nano-points", "--json"])
    said = json.loads(checked.stdout)
    assert (said["good_rows"], said["problems"], said["media"]) == (1, [], {"image": 1})


def test_a_box_that_the_token_limit_cuts_is_said_and_not_shown(tmp_path: Path) -> None:
    scene("star", "green").save(tmp_path / "star.png")
    asked = ["ask", str(tmp_path / "star.png"), "Where is the star?", "--model", "nano-points", "--save", str(tmp_path / "out"), "--max-tokens", "8"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 9
    assert done.stderr == "error: no boxes: the answer ended in the midst of a box. To mend it: raise max_tokens\n"
    assert done.stdout == f"{tmp_path / 'out'}: sample.json, asked.png\n"
    (_, answer) = parse_sample(json.loads((tmp_path / "out" / "sample.json").read_text())).messages
    assert [part.type for part in answer.content] == ["missing"]


@pytest.mark.parametrize(("model", "words", "tokens", "error"), [
    ("nano-points", ["star.png", "Where is the star?"], 3, {"kind": "boxes", "error": "the answer ended in the midst of a box. To mend it: raise max_tokens"}),
    ("nano-draws", ["Draw a red heart."], 2,
     {"kind": "image", "error": "the answer ended in the midst of the tokens that stand for image. To mend it: raise max_tokens"}),
])  # fmt: skip
def test_what_the_token_limit_cuts_ends_alike_whatever_is_asked_for(
    model: str, words: list[str], tokens: int, error: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scene("star", "green").save(tmp_path / "star.png")
    loaded = sensorium.load(model, "cpu")
    monkeypatch.setattr("sensorium.api.load", lambda *_: loaded)
    for form in ([], ["--json"], ["--save", "a"], ["--save", "b", "--json"]):
        done = CliRunner().invoke(app, ["ask", *words, "--model", model, "--max-tokens", str(tokens), *form], catch_exceptions=False)
        assert (done.exit_code, done.stderr) == (9, f"error: no {error['kind']}: {error['error']}\n"), form
        if "--json" in form:
            said = json.loads(done.stdout)
            assert (said["answer"], said["missing"], said["content"]) == ("", [error], [{"type": "missing", "missing": error}])
            assert said.get("unmade", []) == []


def test_where_a_box_lies_is_said_to_people_too(tmp_path: Path) -> None:
    scene("star", "green").save(tmp_path / "star.png")
    done = CliRunner().invoke(app, ["ask", str(tmp_path / "star.png"), "Where is the star?", "--model", "nano-points"], catch_exceptions=False)
    said, how = done.stderr.splitlines()
    found = re.fullmatch(r"box on picture 1: from \((\d+), (\d+)\) to \((\d+), (\d+)\), in pixels", said)
    assert found is not None, said
    places = np.array([int(x) for x in found.groups()]) / CANVAS_PX
    assert np.abs(places - [0.35, 0.15, 0.85, 0.65]).max() < 0.1
    assert how == "To have them drawn over it: sensorium ask --save FOLDER"


def test_places_and_masks_are_in_the_answers_json(tmp_path: Path) -> None:
    """In pixels of the picture as it is, twice as large as what nano was taught with."""
    side = 2 * CANVAS_PX
    scene("star", "green").resize((side, side)).save(tmp_path / "star.png")
    asked = ["ask", str(tmp_path / "star.png"), "Where is the star?", "--model", "nano-points", "--json"]
    said = json.loads(CliRunner().invoke(app, asked, catch_exceptions=False).stdout)
    assert said["pictures"] == [{"image": str(tmp_path / "star.png"), "width_px": side, "height_px": side}]
    (boxes,) = [one["boxes"] for one in said["content"] if one["type"] == "boxes"]
    (mask,) = [one for one in said["content"] if one["type"] == "mask"]
    assert boxes["picture"] == mask["mask"]["picture"] == 1
    assert np.abs(np.array(boxes["places"][0]) / side - [0.35, 0.15, 0.85, 0.65]).max() < 0.1
    inside = read_mask({key: mask["mask"][key] for key in ("size", "counts")}, "mask")
    assert (inside.size, inside.area) == ((side, side), mask["area_px"])
    assert 0 < mask["area_px"] < side * side / 4
    # What it says is a message of a Sample, and what it is when it is saved.
    (answer,) = parse_messages([{"role": "assistant", "content": said["content"]}])
    assert said["answer"] == ""
    saved = json.loads(CliRunner().invoke(app, [*asked, "--save", str(tmp_path / "out")], catch_exceptions=False).stdout)
    assert [part.to_json() for part in parse_messages([{"role": "assistant", "content": saved["content"]}])[0].content] == [
        part.to_json() for part in answer.content]  # fmt: skip
    assert saved["answer"] == ""
    (file,) = [one["file"] for one in saved["content"] if one["type"] == "mask"]
    assert int((np.asarray(Image.open(tmp_path / "out" / file)) > 0).sum()) == mask["area_px"]


def test_a_picture_that_nobody_makes_is_said() -> None:
    done = CliRunner().invoke(app, ["ask", "--model", "nano-draws", "Draw a red heart.", "--json"], catch_exceptions=False)
    said = json.loads(done.stdout)
    assert (said["answer"], said["content"], said["unmade"], said["missing"]) == ("", [{"type": "text", "text": ""}], ["image"], [])
    assert done.exit_code == 0
    assert done.stderr == "image: not made. To have it made: sensorium ask --save FOLDER\n"


def test_a_request_longer_than_the_context_says_so_and_writes_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["ask", "Draw a red heart and " * 2000, "--model", "nano-draws", "--save", str(tmp_path / "out")])
    assert isinstance(done.exception, DataError)
    assert re.search(r"a prompt of \d+ tokens and 64 to answer; expected at most 8192 together", str(done.exception))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["nano-points", "nano-draws", pytest.param("nano-diffuses", marks=needs_diffusers)])
def test_a_copy_that_lost_its_generator_is_refused(name: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(SHIPPED[name], tmp_path / "copy"))
    shutil.rmtree(copy / "generators")
    with pytest.raises(WeightsError, match=r"copy/generators/(image|mask): the generator .* is gone.*copy the model's folder again"):
        sensorium.load(copy, device="cpu")


def test_a_drawer_that_fails_midway_is_said_and_leaves_the_rest(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(SHIPPED["nano-draws"], tmp_path / "copy"))
    painter = copy / "generators" / "image" / "painter.safetensors"
    weights = load_file(painter)
    weights["row_hD.q8_0_scales"][-1] = torch.nan
    save_file(weights, painter)
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["ask", "Draw a red heart.", "--model", str(copy), "--save", str(out), "--json"])
    assert done.exit_code == 9
    (missing,) = json.loads(done.stdout)["missing"]
    # Of eight rows of eight codes the last is spoilt, and a code is drawn behind the place of the one before.
    assert missing["error"].startswith("generator drawer: code 58 of 64 has scores that are no numbers")
    assert [file.name for file in out.iterdir()] == ["sample.json"]


@pytest.mark.parametrize("name", ["nano-draws", pytest.param("nano-diffuses", marks=needs_diffusers)])
def test_it_draws_the_colour_it_is_asked_for(name: str) -> None:
    model = sensorium.load(name, device="cpu")
    for color in ("red", "blue"):
        answer = model.answer([{"role": "user", "content": f"Draw a {color} circle."}], making=Making(seed=3))
        (picture,) = [part.value for part in answer.content if part.type == "image"]
        pixels_HWC = np.asarray(picture.convert("RGB"), dtype=float)
        assert pixels_HWC.shape == (64, 64, 3)
        ink_HWC = pixels_HWC[pixels_HWC.std(axis=-1) > 40]
        wanted = np.array(COLORS[color])
        assert np.corrcoef(ink_HWC.mean(axis=0), wanted)[0, 1] > 0.8


def test_nano_draws_heeds_how_it_is_asked_and_says_what_it_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = sensorium.load("nano-draws", device="cpu")
    monkeypatch.setattr("sensorium.api.load", lambda *_: loaded)
    drawer, led = loaded.network.generators["image"], []

    def spy(condition_BLC: torch.Tensor, *, negative_BLC: torch.Tensor | None, making: Making) -> list[Made]:
        led.append((condition_BLC, negative_BLC, making))
        return real(condition_BLC, negative_BLC=negative_BLC, making=making)

    real = drawer.generate
    monkeypatch.setattr(drawer, "generate", spy)

    def drawn(*options: str) -> tuple[int, str, bytes]:
        out = tmp_path / str(len(led))
        done = CliRunner().invoke(app, ["ask", "Draw a red circle.", "--model", "nano-draws", "--save", str(out), *options], catch_exceptions=False)
        said = "".join(line for line in done.stderr.splitlines(keepends=True) if not line.startswith("making: "))
        return done.exit_code, said, (out / "part1.png").read_bytes() if done.exit_code == 0 else b""

    plain = drawn("--seed", "3")
    asked = drawn("--seed", "3", "--guidance", "2", "--size", "64x64", "--negative", "Draw a red circle.", "--steps", "7")
    assert (plain[:2], asked[:2]) == ((0, ""), (0, "--steps changes nothing: nothing here heeds it (image: drawer)\n"))
    assert asked[2] != plain[2]
    # Led away from the very thing that it is to draw: both conditions are one.
    condition_BLC, negative_BLC, making = led[1]
    assert led[0][1] is None
    torch.testing.assert_close(negative_BLC, condition_BLC, atol=1e-4, rtol=1e-4)
    assert (making.seed, making.guidance, making.size) == (3, 2.0, (64, 64))
    other = drawn("--seed", "3", "--guidance", "2", "--negative", "Draw a blue square.")
    assert (led[2][1] - negative_BLC).abs().max() > 0.1
    assert other[2] != asked[2]
    code, said, _ = drawn("--size", "128")
    assert (code, said.count("\n")) == (9, 1)
    assert "expected 64 x 64, the tokenizer's" in said


def test_nano_finds_the_picture_that_is_described() -> None:
    model = sensorium.load("nano-finds", device="cpu")
    pictures = tuple(scene(shape, color) for shape, color in (("heart", "pink"), ("cross", "black"), ("ring", "blue"), ("star", "yellow")))
    asked = [Request("1", (Message("user", (Part("text", "Find a picture of a yellow star."),)),), 0, pictures=pictures)]
    (answer,) = model.responder.respond(asked)
    assert answer.text.split()[0] == "3"


def test_an_index_for_it_comes_with_a_copy_and_not_into_the_installation(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for color in ("red", "green"):
        scene("circle", color).save(tmp_path / "pictures" / f"{color}.png")
    words = ["index", "build", "nano-finds", str(tmp_path / "pictures")]
    refused = CliRunner().invoke(app, words)
    assert "--out my-nano-finds" in str(refused.exception)
    assert not (SHIPPED["nano-finds"] / "generators").exists()
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "mine")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "mine")])
    assert f"index build {tmp_path / 'mine'} PICTURES" in str(again.exception)
    asked = ["ask", "Find a picture of a green circle.", "--model", str(tmp_path / "mine"), "--save", str(tmp_path / "found")]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "found" / "part1.png") as found, Image.open(tmp_path / "pictures" / "green.png") as wanted:
        assert np.array_equal(np.asarray(found.convert("RGB")), np.asarray(wanted.convert("RGB")))


@pytest.fixture(scope="module")
def choosing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of nano-chooses with an index of coloured shapes, `mine`, beside them."""
    folder = tmp_path_factory.mktemp("choosing")
    (folder / "pictures").mkdir()
    for shape, color in (("heart", "pink"), ("circle", "green"), ("ring", "blue"), ("star", "yellow")):
        scene(shape, color).save(folder / "pictures" / f"{shape}.png")
    done = CliRunner().invoke(app, ["index", "build", "nano-chooses", str(folder / "pictures"), "--out", str(folder / "mine")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("4 pictures")
    return folder


def answered(model: str, words: str, out: Path, *pictures: str) -> list[Part]:
    done = CliRunner().invoke(app, ["ask", *pictures, words, "--model", model, "--save", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return list(parse_sample(json.loads((out / "sample.json").read_text())).messages[1].content)


def test_nano_chooses_finds_what_is_to_be_found_and_draws_what_is_to_be_drawn(choosing: Path, tmp_path: Path) -> None:
    mine = str(choosing / "mine")
    (found,) = answered(mine, "Find a picture of a yellow star.", tmp_path / "found")
    with Image.open(tmp_path / "found" / found.value) as picture, Image.open(choosing / "pictures" / "star.png") as wanted:
        assert np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(wanted.convert("RGB")))
    for name, model in (("with", mine), ("without", "nano-chooses")):
        # To draw, it needs no index.
        (drawn,) = answered(model, "Draw a red heart.", tmp_path / name)
        with Image.open(tmp_path / name / drawn.value) as picture:
            pixels_HWC = np.asarray(picture.convert("RGB"), dtype=float)
        assert pixels_HWC.shape == (64, 64, 3)
        ink_HWC = pixels_HWC[pixels_HWC.std(axis=-1) > 40]
        assert np.corrcoef(ink_HWC.mean(axis=0), np.array(COLORS["red"]))[0, 1] > 0.8
    # One picture, and no second one behind it, also in words that training never used.
    (once,) = answered("nano-chooses", "Sketch a star.", tmp_path / "once")
    assert once.type == "image"


def test_nano_chooses_draws_what_nano_draws_draws(tmp_path: Path) -> None:
    """That a picture is begun oftener, and its way chosen, changes nothing that is read, and so no pixel."""
    theirs, ours = (load(name, "cpu").network for name in ("nano-draws", "nano-chooses"))
    state = ours.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in theirs.state_dict().items())
    assert ours.written is not None
    assert bool(ours.written.weight.any())
    finds = {name: value for name, value in load("nano-finds", "cpu").network.state_dict().items() if name.startswith("hands.image.")}
    assert finds
    assert all(torch.equal(value, state[name.replace("image", "image_other", 1)]) for name, value in finds.items())
    drawn: list[np.ndarray] = []
    for name in ("nano-draws", "nano-chooses"):
        (part,) = answered(name, "Draw a red heart.", tmp_path / name)
        with Image.open(tmp_path / name / part.value) as picture:
            drawn.append(np.asarray(picture.convert("RGB")))
    assert np.array_equal(drawn[0], drawn[1])


def test_nano_chooses_answers_a_question_in_words(choosing: Path, tmp_path: Path) -> None:
    (said,) = answered(str(choosing / "mine"), "What is this?", tmp_path / "said", str(choosing / "pictures" / "star.png"))
    assert said.type == "text"
    assert "star" in said.value
    (said,) = answered(str(choosing / "mine"), "What color is a banana?", tmp_path / "words")
    assert said.type == "text"


def test_nano_chooses_says_what_to_do_where_there_is_nothing_to_find_a_picture_in(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["ask", "Find a picture of a star.", "--model", "nano-chooses", "--save", str(tmp_path / "out")])
    assert done.exit_code == 9
    assert "no index of pictures to find one in" in done.stderr
    assert "sensorium index build MODEL PICTURES" in done.stderr

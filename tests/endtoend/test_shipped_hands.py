"""The shipped models that point and draw, as they lie in the package: right on easy things, and small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import sensorium
from sensorium.cli.main import app
from sensorium.core.hands import Making
from sensorium.core.responder import Request
from sensorium.core.sample import Message, Part, parse_sample
from sensorium.data.scenes import CANVAS_PX, COLORS, Scene, Thing, draw_scene
from sensorium.interop.onto import DIFFERENCE
from sensorium.interop.shipped import SHIPPED

MIB = 2**20
HANDS = sorted(set(SHIPPED) - {"nano"})


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


def test_nano_draws_draws_the_colour_it_is_asked_for() -> None:
    model = sensorium.load("nano-draws", device="cpu")
    for color in ("red", "blue"):
        answer = model.answer([{"role": "user", "content": f"Draw a {color} circle."}], making=Making(seed=3))
        (picture,) = [part.value for part in answer.content if part.type == "image"]
        pixels_HWC = np.asarray(picture.convert("RGB"), dtype=float)
        assert pixels_HWC.shape == (64, 64, 3)
        ink_HWC = pixels_HWC[pixels_HWC.std(axis=-1) > 40]
        wanted = np.array(COLORS[color])
        assert np.corrcoef(ink_HWC.mean(axis=0), wanted)[0, 1] > 0.8


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

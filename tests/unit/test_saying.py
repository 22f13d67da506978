"""What is said of an answer, also of one that holds no word; and such speech in rows of data, which is no part of what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.batch import MediaShape
from sensorium.core.errors import DataError
from sensorium.core.sample import Part, parse_sample
from sensorium.inference.saying import words_to_say
from sensorium.interop.saved import read_model_config
from sensorium.interop.shipped import SHIPPED
from sensorium.media.audio_file import write_wav
from sensorium.processing.taken import SHIPPED as NAMED
from sensorium.processing.taken import check_parts

WIDE = MediaShape(height_px=60, width_px=90)


def boxes(*places: list[float], phrase: str | None = None, picture: int = 1) -> Part:
    return Part("boxes", {"places": list(places), "picture": picture} | ({"phrase": phrase} if phrase else {}))


def test_words_are_said_as_they_are_and_what_has_none_by_where_and_what_it_is() -> None:
    corner, middle, left = [0.0, 0.0, 20.0, 10.0], [40.0, 25.0, 50.0, 35.0], [0.0, 20.0, 10.0, 40.0]
    mask = Part("mask", {"size": [60, 90], "counts": "x", "picture": 1})
    lost = Part("missing", {"kind": "boxes", "error": "cut"})
    for parts, said in (
        ((Part("text", "It is"), boxes(corner), Part("text", "there.")), "It is there."),
        ((boxes(corner), mask), "It is at the top left."),
        ((boxes(middle, phrase="the red circle"), Part("text", ".")), "The red circle is in the middle."),
        ((boxes(left, [80.0, 50.0, 90.0, 60.0]),), "One is on the left. Another is at the bottom right."),
        ((Part("points2d", {"places": [[45.0, 59.0]], "picture": 1}),), "It is at the bottom."),
        ((mask,), "Here is the mask."),
        ((Part("image", "x.png"), Part("video", "x.webp"), Part("audio", "x.wav")), "Here is the picture. Here is the video. Here is the sound."),
        ((lost,), "The box could not be made."),
        ((Part("text", "..."),), "..."),
        ((), ""),
    ):
        assert words_to_say(parts, [WIDE]) == said
    assert words_to_say([boxes(corner, picture=2)], [MediaShape(5, 5), WIDE]) == "It is at the top left of picture 2."


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A row as `ask --save --speak` writes it, and one whose speech failed."""
    Image.new("RGB", (40, 20), (200, 30, 30)).save(tmp_path / "asked.png")
    write_wav(tmp_path / "part2.wav", np.zeros(80, np.float32), 8000)
    asked = {"role": "user", "content": [{"type": "image", "image": "asked.png"}, {"type": "text", "text": "What is it?"}]}
    speech = ({"type": "audio", "audio": "part2.wav", "prompt": "A wall.", "speech": True},
              {"type": "missing", "missing": {"kind": "audio", "error": "no voice"}, "speech": True})  # fmt: skip
    rows = [{"messages": [asked, {"role": "assistant", "content": [{"type": "text", "text": "A wall."}, one]}]} for one in speech]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return tmp_path / "rows.json"


def test_an_answers_speech_is_left_out_of_what_is_learned_and_this_is_said(spoken: Path) -> None:
    checked = CliRunner().invoke(app, ["data", "check", str(spoken), "--json"])
    said = json.loads(checked.stdout)
    assert (said["good_rows"], said["problems"], said["media"]) == (2, [], {"image": 2})
    assert said["notes"] == ["2 rows hold an answer as speech, too, which is left out: it says what is there already"]
    assert len({said["tokens"]["min"], said["tokens"]["max"]}) == 1
    row = json.loads(spoken.read_text())[0]
    sample = parse_sample(row)
    assert sample.to_json() == row
    silent = sample.silent
    assert [part.type for part in silent.messages[-1].content] == ["text"]
    assert silent.silent is silent
    only = parse_sample({"messages": [{"role": "assistant", "content": row["messages"][-1]["content"][1:]}]})
    assert only.silent.messages[0].content == (Part("text", ""),)


def test_a_picture_in_an_answer_is_said_to_teach_no_drawing_to_who_only_reads(spoken: Path) -> None:
    row = {"messages": [{"role": "user", "content": "Draw a wall."}, {"role": "assistant", "content": [{"type": "image", "image": "asked.png"}]}]}
    spoken.write_text(json.dumps([row]))
    for model, notes in (
        ("nano", ["1 row holds an answer with image, which this model reads and does not learn to make; who makes it: " + NAMED["image"]]),
        ("nano-draws", []),
    ):
        said = json.loads(CliRunner().invoke(app, ["data", "check", str(spoken), "--model", model, "--json"]).stdout)
        assert (said["good_rows"], said["notes"]) == (1, notes)


def test_whoever_takes_no_such_answer_is_told_who_does() -> None:
    row = {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": [boxes([1, 2, 3, 4]).to_json()]}]}
    with pytest.raises(DataError, match=r"a part of type 'boxes'.*or take a model that does: nano-points"):
        check_parts(parse_sample(row), ["image"], [])
    row["messages"][1] = {"role": "assistant", "content": [{"type": "text", "text": "Here."}, {"type": "audio", "audio": "x.wav"}]}
    with pytest.raises(DataError, match=r"a part of type 'audio'.*mark the part: \"speech\": true"):
        check_parts(parse_sample(row), ["image"], [])
    for kind, names in NAMED.items():
        for name in (name for name in SHIPPED if name != "nano" and name in names):
            config = read_model_config(SHIPPED[name])
            assert kind in config.hands or (kind == "boxes" and config.boxes), name

"""`ask --save` writes what an answer holds, says what it lacks, and leaves nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence
from typer.testing import CliRunner

import sensorium.cli.answering as answering
import sensorium.cli.saving_answers as saving_answers
from sensorium.cli.main import app
from sensorium.cli.saving_answers import save_answer
from sensorium.cli.watching import Watch
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.hands import CancelledError, Made, Making
from sensorium.core.masks import Mask
from sensorium.core.sample import Message, Part, parse_sample
from sensorium.data.config import FileSource
from sensorium.data.formats.detect import detect_format
from sensorium.interop.saved import read_model_config
from sensorium.interop.shipped import find_model
from sensorium.processing.masks import mask_part

SOUND = Made("audio", np.zeros(80, np.float32), sample_rate_hz=8000)
BOX = Part("boxes", {"places": [[2.0, 2.0, 20.0, 10.0]], "picture": 1, "phrase": "it"})
LOST = Part("missing", {"kind": "image", "error": "generator painter: it failed after step 1 of 3"}, "a red ball")


class Fake:
    """Answers with what it is told to."""

    loaded: Any
    network: Any
    parts: tuple[Part, ...] = ()
    asked: list[dict[str, Any]]

    def __init__(self, *options: Any, **looks: Any) -> None:
        del options, looks
        self.loaded = self.network = self
        self.config = read_model_config(find_model("nano"))

    def told(self, messages: Any) -> Any:
        return messages

    def answer(self, messages: Any, **how: Any) -> Message:
        type(self).asked = [how]
        making: Making = how["making"]
        content: list[Part] = []
        for part in self.parts:
            try:
                content.append(self.made(part, making))
            except CancelledError as stop:
                content.append(Part("missing", {"kind": part.type, "error": str(stop)}))
        return Message("assistant", tuple(content))

    def made(self, part: Part, making: Making) -> Part:
        assert making.progress is not None
        assert making.cancelled is not None
        if part.type != "video":
            return part
        for step in range(1, 4):
            if making.cancelled():
                raise CancelledError(f"stopped after step {step - 1} of 3")
            making.progress(step, 3)
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)
        return part


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    Image.new("RGB", (40, 20), (9, 99, 9)).save(tmp_path / "in.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(answering, "Answerer", Fake)

    def run(*options: str, parts: tuple[Part, ...] = ()) -> Any:
        monkeypatch.setattr(Fake, "parts", parts)
        return CliRunner().invoke(app, ["ask", "in.png", "What?", *options])

    return run


def test_what_there_is_is_written_and_what_lacks_is_said(ask: Any, tmp_path: Path) -> None:
    parts = (Part("text", "It is"), BOX, Part("image", Image.new("RGB", (4, 4)), "a blue ball"), LOST, Part("text", "there."), Part("audio", SOUND))
    done = ask("--save", "out", "--speak", "--json", parts=parts)
    assert done.exit_code == 9
    said = json.loads(done.stdout)
    assert (said["answer"], said["missing"]) == ("It is there.", [LOST.value])
    assert said["parts"] == ["text", "boxes", "image", "missing", "text", "audio"]
    assert said["content"][1:3] == [BOX.to_json(), {"type": "image", "image": "part3.png", "prompt": "a blue ball"}]
    assert said["content"][5] == {"type": "audio", "audio": "part6.wav"}
    assert said["pictures"] == [{"image": "in.png", "width_px": 40, "height_px": 20}]
    assert said["files"] == ["sample.json", "asked.png", "drawn.png", "part3.png", "part6.wav"]
    assert sorted(said["files"]) == sorted(file.name for file in (tmp_path / "out").iterdir())
    assert Fake.asked[0]["speak"] is True
    (_, answer) = parse_sample(json.loads((tmp_path / "out" / "sample.json").read_text())).messages
    assert [part.prompt for part in answer.content] == [None, None, "a blue ball", "a red ball", None, None]
    plain = ask("--save", "again", parts=parts)
    assert plain.exit_code == 9
    assert "error: no image: generator painter: it failed after step 1 of 3" in plain.stderr
    assert plain.stdout.splitlines()[0] == "It is there."
    # Without words there is no empty line for them.
    assert ask("--save", "silent", parts=parts[2:3]).stdout == "silent: sample.json, asked.png, part1.png\n"
    assert ask("--save", "whole", parts=parts[:3]).exit_code == 0


def test_a_saved_answer_is_data(ask: Any, tmp_path: Path) -> None:
    """By itself, and in a list; its places survive."""
    mask = mask_part(Mask.from_array(np.eye(20, 40, dtype=bool)), phrase="it", picture=1)
    parts = (Part("text", "It is here."), BOX, mask)
    assert ask("--save", "out", parts=parts).exit_code == 0
    one, several = tmp_path / "out" / "sample.json", tmp_path / "out" / "several.json"
    plain = {"messages": [{"role": "user", "content": "What is <image>?"}, {"role": "assistant", "content": "A mark."}]}
    several.write_text(json.dumps([plain, json.loads(one.read_text())]))
    for path, rows in ((one, 1), (several, 2)):
        assert detect_format(path) == "samples"
        for format in ("auto", "samples"):
            source = FileSource(path=str(path), format=format).open()
            assert len(source) == rows
            assert source[rows - 1].messages[-1].content == parts
        checked = CliRunner().invoke(app, ["data", "check", str(path), "--model", "nano-points", "--json"])
        said = json.loads(checked.stdout)
        assert (said["good_rows"], said["problems"], said["media"]) == (rows, [], {"image": 1})


def test_a_video_moves_without_loss_and_is_named_as_one(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 12, 16, 3), dtype=np.uint8)
    answer = Message("assistant", (Part("text", "Look."), Part("video", Made("video", frames, fps=4.0))))
    files = save_answer(answer, answering.asked_turn("Show me noise.", None), None, tmp_path / "out")
    assert files == ["sample.json", "part2-video.webp"]
    with Image.open(tmp_path / "out" / files[1]) as video:
        shown = [(np.asarray(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(video)]
    assert np.array_equal(np.stack([frame for frame, _ in shown]), frames)
    assert {duration for _, duration in shown} == {250}
    (_, said) = FileSource(path=str(tmp_path / "out" / "sample.json")).open()[0].messages
    assert said.content[1] == Part("video", files[1])


def test_nothing_is_half_written(ask: Any, tmp_path: Path) -> None:
    silent = Part("audio", Made("audio", np.array([np.nan], np.float32), sample_rate_hz=8000))
    done = ask("--save", "out", parts=(Part("image", Image.new("RGB", (4, 4))), silent))
    assert "one row of finite samples" in str(done.exception)
    assert [file.name for file in tmp_path.iterdir()] == ["in.png"]
    assert "--save FOLDER" in str(ask("--speak").exception)


def test_a_full_disk_leaves_the_answer_on_the_screen_and_nothing_on_the_disk(ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving_answers, "write_json", full)
    done = ask("--save", "out", parts=(Part("text", "Look."), Part("image", Image.new("RGB", (4, 4)))))
    assert done.stdout == "Look.\n"
    assert str(done.exception) == "out: nothing was written: No space left on device. To mend it: make room there, or name a folder elsewhere"
    assert [file.name for file in tmp_path.iterdir()] == ["in.png"]


def test_names_that_no_disk_takes_are_refused(ask: Any, tmp_path: Path) -> None:
    done = ask("--save", "o" * 300)
    assert isinstance(done.exception, ConfigError)
    assert "File name too long" in str(done.exception)
    # A question is none.
    assert answering.asked_turn("Draw a cat. " * 300, None)["content"] == [{"type": "text", "text": "Draw a cat. " * 300}]
    for name, message in (("m" * 300, "no model"), (f"{'m' * 300}/model", "cannot be fetched")):
        with pytest.raises(WeightsError, match=message):
            find_model(name)
    for option in ("--max-tokens=0", "--max-tokens=-5", "--steps=0", "--seed=-1", "--guidance=-1"):
        assert ask("--save", "out", option).exit_code == 2
    assert [file.name for file in tmp_path.iterdir()] == ["in.png"]


def test_ctrl_c_ends_the_making_and_keeps_the_answer(ask: Any, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    done = ask("--save", "out", parts=(Part("text", "Look."), Part("video", None), Part("audio", SOUND)))
    assert done.exit_code == 130
    assert "no video: stopped after step 2 of 3" in done.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["asked.png", "part3.wav", "sample.json"]
    assert signal.getsignal(signal.SIGINT) is before
    with Watch() as watch:
        assert not watch.cancelled()
        os.kill(os.getpid(), signal.SIGINT)
        assert watch.cancelled()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_steps_are_shown_and_a_single_one_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with Watch() as watch:
        watch.progress(1, 1)
        assert capsys.readouterr().err == ""
        for step in range(1, 4):
            watch.progress(step, 3)
    assert "making: 3/3" in capsys.readouterr().err

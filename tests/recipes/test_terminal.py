"""What a terminal of either width shows of the recipes."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys

import pytest
from rich.cells import cell_len

from sensorium.cli.recipes import diff_command, list_command
from sensorium.recipes import RECIPES
from sensorium.recipes.summary import summary


@pytest.fixture(params=[60, 80, 129, 130, 160])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A terminal so wide."""
    size = os.terminal_size((request.param, 24))
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: size)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    return request.param


def test_no_line_is_longer_than_the_terminal_and_no_word_is_broken(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    list_command(as_json=False)
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(cell_len, text.splitlines())) <= width
    words = set(text.replace(";", " ").replace(",", " ").replace(":", " ").split())
    for name in RECIPES:
        row = summary(RECIPES.find(name)())
        assert name in words
        assert row.status in words
        assert set(row.stages) <= words
        assert set(" ".join(row.trained).split()) <= words
        assert "ForConditional" not in text


def test_what_hands_make_is_among_what_comes_out() -> None:
    told = {name: summary(RECIPES.find(name)()).io for name in ("nano", "nano-points", "nano-draws", "next-gpt")}
    assert told == {"nano": "I+T→T", "nano-points": "I+T→T,box,mask", "nano-draws": "I+T→T+I", "next-gpt": "I/V/A+T→T+I/V/A"}


def test_what_a_stage_trains_stands_beside_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: os.terminal_size((200, 24)))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    list_command(as_json=False)
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("llava-onevision "))
    row = summary(RECIPES.find("llava-onevision")())
    for line, stage, trained in zip(lines[start:], row.stages, row.trained, strict=False):
        assert stage in line
        assert trained in line


def test_long_differences_have_a_line_for_each_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    diff_command("llava-1.5", "llava-v1", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("model.lanes.image.encoder.weights.0.id:")
    assert lines[at + 1 : at + 3] == ["    'openai/clip-vit-large-patch14-336'", "  | 'openai/clip-vit-large-patch14'"]
    assert "stages.instruct.batch_size: 128 | 32" in lines
    diff_command("llava-1.5", "llava-v1", as_json=True)
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["stages.instruct.batch_size"]["llava-v1"] == 32

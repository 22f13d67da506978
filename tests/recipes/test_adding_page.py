"""`docs/adding.md` does what it says: its ten lines train, and its encoder is one file and one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import sensorium
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.cli.main import app
from sensorium.text.byte_tokenizer import byte_tokenizer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The page's code of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


COMMANDS = """
import sys
from typer.testing import CliRunner
from sensorium.cli.main import app
for words in sys.argv[1:]:
    CliRunner().invoke(app, words.split(), catch_exceptions=False)
"""
"""Commands one after another in one process, which reads torch once."""
TESTED = """
import sys, pytest
behind = sys.argv.index("--")
assert pytest.main(sys.argv[1:behind]) == 0
del sys.argv[1 : behind + 1]
""" + COMMANDS
"""In front of them the page's tests."""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python, by the copy of the package that lies in the folder."""
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(folder)}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def command(folder: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    """A command of this package, typed in a folder."""
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


TRAIN = ("train", "mine.yaml", "--out", "run")


def saved(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "model" / "config.json").read_text())["model"]


def test_ten_lines_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lines,), (row,) = blocks("yaml"), blocks("json")
    assert len(lines.splitlines()) == 10
    (tmp_path / "mine.yaml").write_text(lines)
    (tmp_path / "rows.jsonl").write_text(row)
    Image.new("RGB", (50, 40), (200, 120, 10)).save(tmp_path / json.loads(row)["messages"][0]["content"][0]["image"])
    assert "starts at random and reads bytes" in command(tmp_path, *TRAIN, monkeypatch=monkeypatch).stderr
    assert saved(tmp_path)["lanes"]["image"]["encoder"]["kind"] == "vit"
    asked = command(tmp_path, "ask", "cat.png", "What is it?", "--model", "run", "--json", monkeypatch=monkeypatch)
    assert "answer" in json.loads(asked.stdout)


def test_an_llm_in_a_folder_brings_its_arch_and_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lines,), (row,) = blocks("yaml"), blocks("json")
    llm = CausalLMConfig.tiny().build()
    llm.lm.save_pretrained(tmp_path / "llm")
    byte_tokenizer().save(tmp_path / "llm")
    values = yaml.safe_load(lines)
    (said,) = re.findall(r"`backbone: (\{kind: causal_lm, weights: .*?\})`", PAGE)
    values["model"]["backbone"] = yaml.safe_load(said.replace("FOLDER", "llm"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "rows.jsonl").write_text(row)
    Image.new("RGB", (50, 40)).save(tmp_path / "cat.png")
    assert "reads bytes" not in command(tmp_path, *TRAIN, monkeypatch=monkeypatch).stderr
    assert saved(tmp_path)["backbone"]["arch"]["hidden_size"] == 48


def test_the_encoder_of_the_page_is_one_file_and_one_line(tmp_path: Path) -> None:
    code, line = blocks("python")
    (file,) = re.findall(r"^One file, `(.*?)`", PAGE, flags=re.MULTILINE)
    ((table, init),) = re.findall(r"^One line, in `(\w+)` of `(.*?)`:$", PAGE, flags=re.MULTILINE)
    assert line.count("\n") == 1
    package = tmp_path / "sensorium"
    # With the bytecode of what stays as it was; not with what another process is just writing.
    shutil.copytree(Path(sensorium.__file__).parent, package, ignore=shutil.ignore_patterns("*.pyc.*"))
    shutil.copytree(ROOT / "tests" / "contract", tmp_path / "tests" / "contract")
    new = tmp_path / file
    assert not new.exists()
    new.write_text(code, encoding="utf-8")
    names = (tmp_path / init).read_text(encoding="utf-8")
    head = f"{table} = NameTable(\n    \"encoder\",\n    {{\n"
    assert head in names
    (tmp_path / init).write_text(names.replace(head, head + line), encoding="utf-8")

    (tests,) = re.findall(r"`python (-m pytest tests/contract -k \w+)`", PAGE)
    # One projector stands for all here; the promises of an encoder are all held.
    words = tests.replace("colours", "(colours and (parts or c_abstractor))").removeprefix("-m pytest ").split(" ", 2)
    ((made, trained),) = re.findall(r"^`sensorium (recipe new .*?)` writes a recipe that `sensorium (train .*?)`", PAGE, re.MULTILINE)
    said = run(tmp_path, "-c", TESTED, *words, "--", made, f"{trained} --out run").stdout
    assert " passed" in said
    assert "failed" not in said
    assert saved(tmp_path)["lanes"]["image"]["encoder"]["kind"] == "colours"

"""Where `ask --save` writes is looked at before anything is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.cli.saving_answers import check_folder
from sensorium.core.errors import ConfigError


def test_a_folder_may_be_new_and_not_below_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_folder(Path("new"))
    check_folder(tmp_path / "a" / "b")
    Path("file").write_text("x")
    for taken in ("file", "file/out", "file/a/b"):
        with pytest.raises(ConfigError, match="--save"):
            check_folder(Path(taken))
    Path("used").mkdir()
    check_folder(Path("used"))
    Path("used/x").write_text("x")
    with pytest.raises(ConfigError, match="not an empty folder"):
        check_folder(Path("used"))


def test_an_index_replaces_nothing_but_an_index(tmp_path: Path) -> None:
    """Not even the pictures that it is to be made of."""
    (tmp_path / "cat.png").write_bytes(b"a picture")
    for taken in (tmp_path, tmp_path / "cat.png"):
        done = CliRunner().invoke(app, ["index", "build", "nano", str(tmp_path), "--out", str(taken)])
        assert "--out: " in str(done.exception)
    assert (tmp_path / "cat.png").read_bytes() == b"a picture"


def test_what_is_said_of_what_is_made_wants_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the seed and the steps would mean nothing, and nobody would say so. No model is read for that."""
    monkeypatch.setattr("sensorium.api.load", lambda *_: pytest.fail("a model was read"))

    def refused(*words: str) -> ConfigError:
        error = CliRunner().invoke(app, ["ask", "a cat", *words]).exception
        assert isinstance(error, ConfigError)
        assert error.exit_code == 2
        return error

    assert str(refused("--seed", "0")).startswith("--seed without --save. To mend it: --save FOLDER")
    assert str(refused("--steps", "20", "--draw")).startswith("--draw, --steps without --save")
    assert str(refused("--guidance", "3", "--size", "64", "--negative", "grey")).startswith("--guidance, --size, --negative without --save")
    for words in (("--save", "out"), ("--seed", "1")):
        assert f"{words[0]} with --choices" in str(refused(*words, "--choices", "list.txt"))

"""Where `ask --save` writes is looked at before anything is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

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

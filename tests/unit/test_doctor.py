"""doctor runs where things are missing: that is when it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sensorium.cli import doctor

WITHOUT_TORCH = """
import importlib.metadata, sys
real = importlib.metadata.version
def version(name):
    if name == 'torch':
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.version = version
sys.modules['torch'] = None
sys.argv = ['sensorium', 'doctor', '--json']
from sensorium.cli.main import main
main()
"""
Findings = Callable[[], dict[str, dict[str, str]]]
BUILT = ("picture-book, whole", "drawing-book")


def test_without_torch_it_gives_the_remedy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 1
    found = {f["what"]: f for f in json.loads(done.stdout)}
    assert found["torch"]["state"] == "missing"
    assert found["torch"]["remedy"] == "pip install torch"
    assert found["transformers"]["state"] == "ok"
    assert "torch" in found["nano's weights"]["found"]


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Findings:
    """Runs doctor without what imports torch; its findings by name."""
    monkeypatch.setattr(doctor, "_accelerator", list)
    monkeypatch.setattr(doctor, "_weights", list)

    def run() -> dict[str, dict[str, str]]:
        doctor.doctor_command(as_json=True)
        return {f["what"]: f for f in json.loads(capsys.readouterr().out)}

    return run


def test_optional_things_have_remedies_and_do_not_fail(
    findings: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = ("peft", "matplotlib", "tensorboard", "pyarrow", "resvg-py")
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in packages else real(name))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SENSORIUM_DATA", str(tmp_path))
    found = findings()
    optional = (*packages, "npm", "apt-get", *BUILT)
    assert {name: found[name]["state"] for name in optional} == dict.fromkeys(optional, "option")
    assert all(found[name]["remedy"] for name in optional)
    assert "sensorium data build drawing-book" in found["drawing-book"]["remedy"]
    assert str(tmp_path / "packages") in found["npm"]["remedy"]


def test_what_is_there_is_ok(findings: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("npm", "apt-get"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    for name in ("picture-book", "drawing-book"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("pictures.jsonl" if name == "picture-book" else "pictures.jsonl.gz")).touch()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("SENSORIUM_DATA", str(tmp_path))
    found = findings()
    for name in ("npm", "apt-get", "huggingface_hub", *BUILT):
        assert found[name]["state"] == "ok", found[name]


def test_what_is_necessary_fails(findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "huggingface_hub" else real(name))
    with pytest.raises(SystemExit) as caught:
        findings()
    assert caught.value.code == 1

"""Of the comparison of training speed: each lever's switch fits the code that it replaces and changes no loss, and what the peers read needs nothing of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import torch
torch.set_num_threads(1)
from tiny_batches import tiny
from sensorium.interop.assemble import build_pretrained
from sensorium.training.options import TrainerOptions
from sensorium.training.run import train_recipe
import ours

for name in sys.argv[4:]:
    ours.OFF[name]()
folder = Path(sys.argv[3])
made = tiny("stages.instruct.pack=true", "stages.align.steps=1", "stages.instruct.steps=3")
train_recipe(made, lambda: build_pretrained(made.model), lambda *_: None, TrainerOptions(folder=folder, cache=folder / "cache"))
print(json.dumps([json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]))
"""


def losses(folder: Path, *off: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(ROOT / "benchmarks" / "training"), str(ROOT / "tests" / "unit"), str(folder), *off],
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_all_levers_off_at_once(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks" / "training"))
    try:
        from ours import OFF
    finally:
        sys.path.pop(0)
    plain = losses(tmp_path / "plain")
    assert len(plain) == 4
    assert losses(tmp_path / "off", *OFF) == pytest.approx(plain, rel=1e-4)


def test_peers_have_none_of_ours() -> None:
    """Their environment lacks Sensorium."""
    script = """
import sys
sys.path.insert(0, sys.argv[1])
sys.modules["sensorium"] = None
import hf
"""
    done = subprocess.run([sys.executable, "-c", script, str(ROOT / "benchmarks" / "training")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]

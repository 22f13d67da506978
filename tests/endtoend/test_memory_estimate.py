"""The plan's memory beside the peak of the process that trains."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.recipes import RECIPES
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions

def held(key):
    return int(Path("/proc/self/status").read_text().split(key)[1].split()[0]) / 1024

def train(name, *overrides, plans=None):
    stages = [f"stages.{s}.{o}" for s in ("align", "instruct") for o in ("workers=0", "steps=2")]
    recipe = RECIPES.find("tiny")().override([*stages, *overrides])
    options = TrainerOptions(folder=Path(sys.argv[1]) / name, cache=Path(sys.argv[1]) / "cache", on_plan=(lambda _: None) if plans is None else plans.append)
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)

torch.set_num_threads(1)
# What torch and the libraries take is there before.
train("small")
before, plans = held("VmRSS:"), []
size = {"hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 2}
train("large", *(f"model.backbone.arch.{k}={v}" for k, v in size.items()), "stages.instruct.steps=4", *sys.argv[2:], plans=plans)
print(json.dumps({"planned": max(plan.memory_mb for plan in plans), "taken": held("VmHWM:") - before}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
@pytest.mark.parametrize("more", [("batch_size=8",), ("batch_size=4", "pack=true")])
def test_a_step_takes_about_what_is_planned(more: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), *(f"stages.instruct.{one}" for one in (*more, "max_length=512"))],
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    # Enough to see one that is a third too low, as it was.
    assert 0.75 < found["taken"] / found["planned"] < 1.15, found

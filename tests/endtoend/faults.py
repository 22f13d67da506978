"""What the tests of faults share: a tiny run, in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.nn.pretrained import read_file
from sensorium.recipes import RECIPES
from sensorium.training.config import Recipe
from sensorium.training.log import read_log
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions


def tiny(*overrides: str) -> Recipe:
    return RECIPES.find("tiny")().override(overrides)


def train(recipe: Recipe, folder: Path, *, resume: bool = False) -> None:
    options = TrainerOptions(folder=folder, cache=folder.parent / "cache", resume=resume)
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in x.items() if k != "seconds"} for x in read_log(folder / "log.jsonl")]


def same_run(one: Path, two: Path) -> None:
    assert lines(one) == lines(two)
    a, b = (read_file(x / "model" / "model.safetensors") for x in (one, two))
    assert set(a) == set(b)
    for name in a:
        assert torch.equal(a[name], b[name]), name


def command(folder: Path, *overrides: str) -> list[str]:
    """The command line's `train`, as a user starts it."""
    return [sys.executable, "-m", "sensorium.cli.main", "train", "tiny", *overrides, "--out", str(folder)]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)

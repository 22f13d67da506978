"""What the tests of faults share: a tiny run, in this process or in one of its own, and disks of a test's own."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.nn.pretrained import read_file
from sensorium.recipes import RECIPES
from sensorium.training.checkpoint import load_checkpoint
from sensorium.training.config import Recipe
from sensorium.training.log import read_log
from sensorium.training.objectives import next_token
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions

PROBES = 2
CLONE_NEWNS = 0x00020000


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


def step_of(folder: Path) -> tuple[int, int]:
    """Stage and step of the newest whole checkpoint."""
    saved = load_checkpoint(folder / "checkpoint")
    assert saved is not None
    return saved.stage, saved.step


def at_step(number: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something within the n-th step of the next run."""
    real, calls = next_token.next_token_losses, {"n": -PROBES}

    def losses(model: Any, batch: Any) -> Any:
        calls["n"] += 1
        if calls["n"] == number:
            act()
        return real(model, batch)

    monkeypatch.setattr(next_token, "next_token_losses", losses)


def command(folder: Path, *overrides: str) -> list[str]:
    """The command line's `train`, as a user starts it."""
    return [sys.executable, "-m", "sensorium.cli.main", "train", "tiny", *overrides, "--out", str(folder)]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def mount_or_skip(*words: str | Path) -> None:
    try:
        mount(*words)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this user may not mount such a file system: {error}")


def in_own_mounts(work: Callable[[], Any]) -> Any:
    """What `work` returns in a child whose mounts nobody else sees: they go with it.

    Skips the test where this user may not mount.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        told: dict[str, Any] = {}
        try:
            if ctypes.CDLL(None).unshare(CLONE_NEWNS):
                pytest.skip("this user may have no mounts of his own")
            mount("--make-rprivate", "/")
            told["made"] = work()
        except pytest.skip.Exception as reason:
            told["skip"] = str(reason)
        except BaseException:
            told["error"] = traceback.format_exc()
        finally:
            with os.fdopen(write, "w") as stream:
                json.dump(told, stream)
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        said: dict[str, Any] = json.load(stream)
    os.waitpid(child, 0)
    if "skip" in said:
        pytest.skip(said["skip"])
    assert "error" not in said, said["error"]
    return said["made"]

"""A run with Adafactor goes on, bit for bit, where it was cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.nn.pretrained import read_file
from sensorium.recipes import RECIPES
from sensorium.training.log import read_log
from sensorium.training.run import train_recipe
from sensorium.training.stage_run import StageRun
from sensorium.training.trainer import TrainerOptions


class CutOffError(Exception):
    """The test's own end of a run."""


def train(folder: Path, *, resume: bool = False) -> None:
    recipe = RECIPES.find("tiny")().override(
        ("stages.align.steps=5", "stages.align.checkpoint_every=2", "stages.align.optimiser=adafactor",
         "stages.instruct.steps=2")
    )
    options = TrainerOptions(folder=folder, cache=folder.parent / "cache", resume=resume)
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)


def test_adafactor_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole")
    shown = StageRun._show  # pyright: ignore[reportPrivateUsage]

    def cut(self: StageRun, meter: object, step: int) -> None:
        shown(self, meter, step)  # pyright: ignore[reportArgumentType]
        if step == 3:
            raise CutOffError

    with monkeypatch.context() as patch:
        patch.setattr(StageRun, "_show", cut)
        with pytest.raises(CutOffError):
            train(tmp_path / "cut")
    train(tmp_path / "cut", resume=True)
    lines = [[(x["step"], x["loss"], x["grad_norm"]) for x in read_log(tmp_path / run / "log.jsonl")]
             for run in ("whole", "cut")]  # fmt: skip
    assert lines[0] == lines[1]
    assert len(lines[0]) == 7
    one, two = (read_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "cut"))
    assert set(one) == set(two)
    assert all(torch.equal(one[name], two[name]) for name in one)

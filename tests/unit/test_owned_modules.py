"""Modules that an objective owns learn, are in checkpoints, and leave no trace in the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError
from sensorium.data.source import Source
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.pretrained import read_file
from sensorium.processing.processor import Processor
from sensorium.recipes import RECIPES
from sensorium.training import stage_run
from sensorium.training.config import Recipe
from sensorium.training.log import read_log
from sensorium.training.objectives import OBJECTIVES
from sensorium.training.objectives.base import Losses, ObjectiveConfig
from sensorium.training.objectives.next_token import next_token_losses
from sensorium.training.run import plan_recipe, train_recipe
from sensorium.training.trainer import TrainerOptions


class PullConfig(ObjectiveConfig):
    """Next words, and the mean of the hidden states pulled to a place that is learnt."""

    kind: Literal["pull"] = "pull"
    wide: bool = False

    def build(self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]) -> Pull:
        width = model.config.backbone.d_model
        return Pull(nn.ModuleDict({
            "map": nn.Sequential(nn.Linear(width, width), nn.Dropout(0.1)),
            "head": nn.Linear(width, 3 if self.wide else 2),
        }))  # fmt: skip


@dataclass
class Pull:
    module: nn.ModuleDict

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        losses = next_token_losses(model, batch)
        mean_BD = model(batch).hidden_BTD.mean(dim=1)
        pulled = self.module["head"](self.module["map"](mean_BD)).square().mean()
        return Losses(losses.total + pulled, losses.count, losses.parts)


LEARNS = "[{part: projectors.image, lr: 0.01}, {part: objective, lr: 0.01}]"


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES._targets, "pull", f"{__name__}:PullConfig")


def recipe(*more: str) -> Recipe:
    stages = [f"stages.{s}.{line}" for s in ("align", "instruct") for line in (
        "objective={kind: pull}", f"learns={LEARNS}", "checkpoint_every=1", "steps=4")]  # fmt: skip
    return RECIPES.find("tiny")().override([*stages, *more])


def train(wanted: Recipe, folder: Path, *, resume: bool = False) -> Any:
    options = TrainerOptions(folder=folder, cache=folder.parent / "cache", resume=resume)
    return train_recipe(wanted, lambda: build_pretrained(wanted.model), save_model, options)


def checkpoint(folder: Path) -> dict[str, Tensor]:
    return read_file(folder / "checkpoint" / "weights.safetensors")


def curve(folder: Path) -> list[tuple[Any, ...]]:
    return [(x["stage"], x["step"], x["loss"], x["grad_norm"]) for x in read_log(folder / "log.jsonl")]


@pytest.mark.parametrize("after", [2, 4, 6])
def test_a_cut_run_resumes_bit_for_bit(after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(recipe(), tmp_path / "whole")
    steps = {"done": 0}
    real = stage_run.StageRun._logged_step

    def cut(self: Any, *rest: Any) -> Any:
        if steps["done"] == after:
            raise KeyboardInterrupt
        steps["done"] += 1
        return real(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(stage_run.StageRun, "_logged_step", cut)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(), tmp_path / "cut")
    torch.manual_seed(after)
    train(recipe(), tmp_path / "cut", resume=True)
    assert curve(tmp_path / "whole") == curve(tmp_path / "cut")
    one, two = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "cut")
    assert set(one) == set(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert sum(name.startswith("objective.") for name in one) == 4


def test_it_learns_is_counted_and_is_not_saved(tmp_path: Path) -> None:
    plans = train(recipe(), tmp_path / "a")
    # A map of the LLM's width in and out, and a head of two.
    width = recipe().model.backbone.d_model
    size = width * width + width + 2 * width + 2
    assert ("objective", size, size) in plans[0].parts
    model, _ = load_model(tmp_path / "a" / "model")
    assert not hasattr(model, "objective")
    stored = read_file(tmp_path / "a" / "model" / "model.safetensors")
    assert not any("objective" in name for name in stored)


def test_a_later_stage_goes_on_from_what_has_the_same_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins: list[dict[str, Tensor]] = []
    real = stage_run.StageRun.train

    def seen(self: Any, *rest: Any) -> None:
        begins.append({n: v.clone() for n, v in self.trainer.model.state_dict().items() if n.startswith("objective.")})
        real(self, *rest)
        begins.append({n: v.clone() for n, v in self.trainer.model.state_dict().items() if n.startswith("objective.")})

    monkeypatch.setattr(stage_run.StageRun, "train", seen)
    train(recipe("stages.instruct.objective={kind: pull, wide: true}"), tmp_path / "a")
    first, taught, second, _ = begins
    for name in first:
        assert not torch.equal(first[name], taught[name]), name
    assert torch.equal(second["objective.map.0.weight"], taught["objective.map.0.weight"])
    assert second["objective.head.weight"].shape != taught["objective.head.weight"].shape


def test_frozen_modules_stay_and_none_cannot_learn(tmp_path: Path) -> None:
    learns = "learns=[{part: projectors.image, lr: 0.01}, {part: objective, module: head, lr: 0.01}]"
    wanted = recipe(f"stages.align.{learns}", f"stages.instruct.{learns}")
    train(wanted, tmp_path / "a")
    train(wanted.override(["stages.align.steps=1", "stages.instruct.steps=1"]), tmp_path / "b")
    one, two = checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b")
    assert torch.equal(one["objective.map.0.weight"], two["objective.map.0.weight"])
    assert not torch.equal(one["objective.head.weight"], two["objective.head.weight"])
    plain = RECIPES.find("tiny")().override([f"stages.align.learns={LEARNS}"])
    options = TrainerOptions(folder=tmp_path / "c", cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match="no part 'objective'"):
        plan_recipe(plain, lambda: build_pretrained(plain.model), options)

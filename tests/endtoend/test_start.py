"""Training that starts from a trained model: what fits is taken whole, the rest is new."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sensorium.core.errors import ConfigError, WeightsError
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.interop.start import start_from
from sensorium.model.adapter import inject_adapter
from sensorium.recipes import RECIPES
from sensorium.training.config import Recipe
from sensorium.training.run import plan_recipe, train_recipe
from sensorium.training.trainer import TrainerOptions

SHORT = ("stages.align.steps=2", "stages.instruct.steps=2")
ADAPTED = ("model.adapter={rank: 2}", "stages.instruct.learns=[{part: adapter, lr: 0.05}]")


def tiny(*overrides: str) -> Recipe:
    return RECIPES.find("tiny")().override([*SHORT, *overrides])


def train(recipe: Recipe, folder: Path) -> Path:
    start = (lambda m: start_from(m, Path(recipe.start or "")).names) if recipe.start else None
    options = TrainerOptions(folder=folder, cache=folder.parent / "cache", start=start)
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)
    return folder / "model"


def test_a_second_run_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    first = train(tiny(*ADAPTED), tmp_path / "a")
    recipe = tiny(*ADAPTED, "seed=5")
    model, _ = build_pretrained(recipe.model)
    inject_adapter(model)
    started = start_from(model, first)
    assert started.new == []
    # Answering merges the adapter; so does this comparison.
    save_model(model, build_pretrained(recipe.model)[1], tmp_path / "b", started.names)
    one, two = load_model(first)[0].state_dict(), load_model(tmp_path / "b")[0].state_dict()
    assert set(one) == set(two)
    for name in one:
        torch.testing.assert_close(one[name], two[name])


def test_an_adapter_of_another_form_is_merged(tmp_path: Path) -> None:
    first = train(tiny(*ADAPTED), tmp_path / "a")
    torch.manual_seed(5)  # Other random weights than those the adapter was trained beside.
    model, _ = build_pretrained(tiny().model)
    started = start_from(model, first)
    assert started.new == []
    assert any("q_proj.weight" in name for name in started.names)
    merged = load_model(first)[0].state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, merged[name])


def test_a_part_that_does_not_fit_stays_new_as_a_whole(tmp_path: Path) -> None:
    first = train(tiny(), tmp_path / "a")
    model, _ = build_pretrained(tiny("model.lanes.image.projector={kind: mlp, depth: 3}").model)
    before = {n: v.clone() for n, v in model.state_dict().items() if n.startswith("projectors.")}
    started = start_from(model, first)
    assert started.new == ["projectors.image"]
    assert all(torch.equal(model.state_dict()[n], v) for n, v in before.items())
    assert not any(n.startswith("projectors.") for n in started.names)


def test_what_came_from_the_start_is_saved_though_it_does_not_learn(tmp_path: Path) -> None:
    learns = "stages.align.learns=[{part: encoders.image, lr: 0.01}]"
    first = train(tiny(learns), tmp_path / "a")
    second = train(tiny(f"start={first}"), tmp_path / "b")
    one, two = load_model(first)[0].encoders.state_dict(), load_model(second)[0].encoders.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_start_that_fits_nowhere_or_that_nobody_reads_is_refused(tmp_path: Path) -> None:
    first = train(tiny(), tmp_path / "a")
    # A folder that holds a projector alone, of another shape.
    from safetensors.torch import load_file, save_file

    tensors = load_file(first / "model.safetensors")
    save_file({n: v[:1].clone() for n, v in tensors.items() if v.ndim > 1}, first / "model.safetensors")
    model, _ = build_pretrained(tiny().model)
    with pytest.raises(WeightsError, match="nothing of this model fits"):
        start_from(model, first)
    recipe = tiny("start=nano")
    options = TrainerOptions(folder=tmp_path / "b", cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match="nothing was given that reads it"):
        plan_recipe(recipe, lambda: build_pretrained(recipe.model), options)

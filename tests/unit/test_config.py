"""Configs print, load, take overrides, and answer typos kindly."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensorium.core.errors import ConfigError
from sensorium.core.tables import NameTable
from sensorium.recipes import RECIPES
from sensorium.training.config import Recipe


def tiny() -> Recipe:
    return RECIPES.find("tiny")()


def test_yaml_round_trip(tmp_path: Path) -> None:
    tiny().save(tmp_path / "r.yaml")
    assert Recipe.load(tmp_path / "r.yaml") == tiny()


def test_overrides_reach_every_depth() -> None:
    changed = tiny().override(
        ["stages.align.steps=3", "stages.1.batch_size=7", "model.lanes.image.encoder.layers=2",
         "stages.align.learns.0.lr=5e-4", "stages.align.schedule={shape: constant}"]
    )  # fmt: skip
    assert changed.stages[0].steps == 3
    assert changed.stages[1].batch_size == 7
    assert changed.model.lanes["image"].encoder.layers == 2
    assert changed.stages[0].learns[0].lr == 5e-4
    assert changed.stages[0].schedule.shape == "constant"


def test_another_kind_drops_the_keys_of_the_old_one() -> None:
    recipe = RECIPES.find("llava-1.5")()
    projector = "model.lanes.image.projector"
    assert recipe.override([f"{projector}.kind=c_abstractor"]).model.lane("image").projector.kind == "c_abstractor"
    # In any order; the new kind's keys are there, and a misspelt one is found.
    changed = recipe.override([f"{projector}.tokens=64", f"{projector}.kind=c_abstractor"])
    assert changed.model.lane("image").projector.to_dict()["tokens"] == 64
    with pytest.raises(ConfigError, match="did you mean 'tokens'"):
        recipe.override([f"{projector}.kind=c_abstractor", f"{projector}.tokenz=64"])
    # The kind that it has drops nothing.
    assert recipe.override([f"{projector}.kind=mlp"]) == recipe
    inner = recipe.override(["model.backbone.kind=seq2seq_lm", "model.backbone.arch.model_type=t5"])
    assert inner.model.backbone.to_dict()["arch"] == {"model_type": "t5"}


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("stages.align.stepz=3", "did you mean 'steps'"),
        ("stages.aligm.steps=3", "did you mean 'align'"),
        ("modl.template=plain", "did you mean 'model'"),
        ("model.lanes.image.encoder.witdh=3", "did you mean 'width'"),
        ("stages.align.steps", "no '='"),
        ("stages.align.batch_size=zero", "batch_size"),
        ("stages.align.batch_size=0", "batch_size"),
        ("model.lanes.image.encoder.kind=clap", "did you mean 'clip'"),
        ("seed.deep=1", "has no key"),
        ("stages.align.steps=null", "needs either steps or epochs"),
    ],
)
def test_bad_overrides_name_the_nearest(assignment: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        tiny().override([assignment])


def test_unknown_key_in_yaml_names_the_nearest(tmp_path: Path) -> None:
    text = tiny().to_yaml().replace("max_length:", "max_lenght:", 1)
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"max_lenght.*did you mean 'max_length'") as caught:
        Recipe.load(tmp_path / "r.yaml")
    assert "r.yaml" in str(caught.value)


def test_broken_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match=r"r\.yaml"):
        Recipe.load(tmp_path / "r.yaml")
    with pytest.raises(ConfigError, match="no such config"):
        Recipe.load(tmp_path / "gone.yaml")


def test_configs_are_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        tiny().stages[0].steps = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_name_table_suggests_and_refuses() -> None:
    table = NameTable("thing", {"alpha": "math:pi"})
    assert table.find("alpha") > 3
    with pytest.raises(ConfigError, match="did you mean 'alpha'"):
        table.find("alpah")
    with pytest.raises(ValueError, match="module:attribute"):
        NameTable("thing", {"bad": "math.pi"})

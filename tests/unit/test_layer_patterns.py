"""Rates, decay and freezing by pattern: what each entry of `learns` means, what is printed, and what training does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.errors import ConfigError
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.model.adapter import inject_adapter
from sensorium.model.learning import Learn, learning_modules, set_learning
from sensorium.model.multimodal import MultimodalModel
from sensorium.recipes import RECIPES
from sensorium.training.optimiser import build_optimiser, group_parameters
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions

LEARNS = (
    Learn(part="backbone", lr=1e-3, weight_decay=0.1, layers=("layers.[-0]",), freeze=("*norm*", "mlp.down_proj")),
    Learn(part="backbone", lr=5e-3, layers=("layers.[1-]", "norm")),
    Learn(part="encoders.image", lr=2e-3, layers=("fc1", "fc2"), freeze=("layers.0",)),
)  # fmt: skip
WORDS = "stages.instruct.learns=" + json.dumps([learn.to_dict() for learn in LEARNS])


def model() -> MultimodalModel:
    torch.manual_seed(0)
    return build_pretrained(RECIPES.find("tiny")().model)[0]


def test_entries_divide_a_part() -> None:
    net = model()
    (_, first), (_, second), (_, eye) = set_learning(net, LEARNS)
    names = {name for name, _ in first}
    assert names == {n for n, _ in net.named_parameters() if ".layers.0." in n and n.startswith("backbone")
                     and "norm" not in n and "down_proj" not in n}  # fmt: skip
    assert {name for name, _ in second} == {n for n, _ in net.named_parameters() if n.startswith("backbone")
                                            and (".layers.1." in n or n.endswith("model.norm.weight"))}  # fmt: skip
    assert eye
    assert all(".fc" in name and ".layers.0." not in name for name, _ in eye)
    learning = {n for n, p in net.named_parameters() if p.requires_grad}
    assert learning == names | {n for n, _ in second} | {n for n, _ in eye}


def test_the_table_is_the_optimisers_own() -> None:
    groups = set_learning(model(), LEARNS)
    rows = [group.to_json() for group in group_parameters(groups)]
    optimiser = build_optimiser(groups, (0.9, 0.98))
    assert len(rows) == len(optimiser.param_groups)
    for row, group in zip(rows, optimiser.param_groups, strict=True):
        assert row["lr"] == group["lr"] == group["peak"]
        assert row["weight_decay"] == group["weight_decay"]
        assert row["parameters"] == sum(p.numel() for p in group["params"])
    assert [(r["part"], r["kind"], r["weight_decay"]) for r in rows] == [
        ("backbone", "matrices", 0.1), ("backbone", "matrices", 0.0), ("backbone", "vectors", 0.0),
        ("encoders.image", "matrices", 0.0), ("encoders.image", "vectors", 0.0)]  # fmt: skip
    assert rows[0]["which"] == "layers.[-0]; without *norm*, mlp.down_proj"


@pytest.mark.parametrize(
    ("learn", "said"),
    [(Learn(part="backbone", lr=1, layers=("layer.0",)), "layers: pattern 'layer.0' fits no name.*did you mean 'layers'"),
     (Learn(part="backbone", lr=1, layers=("layers.[7-]",)), "numbers go from 0 to 1"),
     (Learn(part="backbone", lr=1, layers=("layers.0",), freeze=("layers.1",)), "freeze: pattern 'layers.1' fits no name"),
     (Learn(part="backbone", lr=1, layers=("layers..x",)), "expected pieces between dots")],
)  # fmt: skip
def test_a_pattern_that_means_nothing_is_an_error(learn: Learn, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        set_learning(model(), (learn,))


def test_overlap_is_an_error() -> None:
    entries = (Learn(part="backbone", lr=1, layers=("layers.0",)), Learn(part="backbone", lr=2, layers=("q_proj",)))
    with pytest.raises(ConfigError, match=r"layers\.0.*q_proj.* is named by two entries.*divide the part"):
        set_learning(model(), entries)


def test_dropout_acts_only_where_something_learns() -> None:
    net = model()
    blocks = net.backbone.trainable_blocks()
    assert learning_modules(net, Learn(part="backbone", lr=1, layers=("layers.1.mlp",))) == [blocks[1]]
    # The last norm is in no block.
    assert learning_modules(net, LEARNS[1]) == [net.backbone]
    config = RECIPES.find("tiny")().override(["model.adapter={rank: 2}"]).model
    net = build_pretrained(config)[0]
    inject_adapter(net)
    found = learning_modules(net, Learn(part="adapter", lr=1, layers=("layers.1.**.q_proj",)))
    assert found == [net.backbone.lm.model.layers[1].self_attn.q_proj]


def test_printed_before_step_one() -> None:
    result = CliRunner().invoke(app, ["train", "tiny", "--plan-only", WORDS])
    assert result.exit_code == 0, result.exception
    lines = [line.split() for line in result.stderr.splitlines()]
    assert ["backbone,", "layers.[1-],", "norm:", "20,736", "in", "matrices", "5.00e-03", "0"] in lines
    assert any(line[:2] == ["backbone,", "layers.[-0];"] and line[-2:] == ["1.00e-03", "0.1"] for line in lines)
    result = CliRunner().invoke(app, ["train", "tiny", "--plan-only", "--json", WORDS])
    (_, stage) = json.loads(result.stdout)["stages"]
    assert [(g["lr"], g["weight_decay"]) for g in stage["groups"]] == [
        (1e-3, 0.1), (5e-3, 0.0), (5e-3, 0.0), (2e-3, 0.0), (2e-3, 0.0)]  # fmt: skip
    assert sum(g["parameters"] for g in stage["groups"]) == sum(p["learning"] for p in stage["parts"])


def test_each_learns_at_its_rate_and_the_rest_is_untouched(tmp_path: Path) -> None:
    recipe = RECIPES.find("tiny")().override(
        [WORDS, "stages.align.steps=1", "stages.instruct.steps=1", "stages.instruct.schedule={shape: constant}"])  # fmt: skip
    torch.manual_seed(recipe.seed)
    before = {n: v.clone() for n, v in build_pretrained(recipe.model)[0].state_dict().items()}
    options = TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache")
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)
    after = load_model(tmp_path / "run" / "model")[0]
    rates = {name: learn.lr for learn, pairs in set_learning(after, LEARNS) for name, _ in pairs}
    for name, value in after.state_dict().items():
        moved = (value - before[name]).abs().max().item() if value.is_floating_point() else 0.0
        if name in rates:
            # Adam's first step is the rate itself, and decay adds a tenth of a weight's thousandth.
            assert moved == pytest.approx(rates[name], rel=0.15), name
        elif not name.startswith("projectors."):
            assert moved == 0.0, name

"""Every kind of tuning through a whole run: what is frozen stays bit for bit, what learns moves, a run that was
cut goes on bit for bit, and the saved model answers as the trained one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.model.learning import owner
from sensorium.recipes import RECIPES
from sensorium.training.checkpoint import load_checkpoint
from sensorium.training.config import Recipe
from sensorium.training.run import train_recipe
from sensorium.training.trainer import Trainer, TrainerOptions

ADAPTERS = {
    "lora_last_layer": "{rank: 2, targets: ['layers.[1-]'], dropout: 0.3}",
    "dora_dropout": "{rank: 2, alpha: 8, dropout: 0.3, dora: true, rslora: true}",
    "prefix": "{kind: prefix, length: 3, hidden: 8}",
}
EYE = ("model.lanes.image.adapter={rank: 2, targets: ['layers.*.mlp', q_proj], dora: true, dropout: 0.2}",
       "stages.align.learns=[{part: adapters.image, lr: 0.02}, {part: projectors.image, lr: 0.001}]")  # fmt: skip
LLM = "stages.instruct.learns=[{part: adapter, lr: 0.02}]"
STEPS = ("stages.align.steps=3", "stages.instruct.steps=4", "stages.instruct.max_length=400", "stages.instruct.pack=true", "stages.instruct.accumulate=2",
         "stages.align.checkpoint_every=1", "stages.instruct.checkpoint_every=1")  # fmt: skip


def recipe_of(adapter: str, *more: str) -> Recipe:
    return RECIPES.find("tiny")().override([f"model.adapter={adapter}", LLM, *EYE, *STEPS, *more])


def train(recipe: Recipe, folder: Path, *, resume: bool = False) -> None:
    options = TrainerOptions(folder=folder, cache=folder.parent / "cache", resume=resume)
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    saved = load_checkpoint(folder / "checkpoint")
    assert saved is not None
    return saved.weights


class CutError(Exception):
    """The end of a run that was cut."""


def train_and_cut(recipe: Recipe, folder: Path, saves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until so many checkpoints are written, and stop there."""
    whole, left = Trainer.save, saves

    def save(self: Trainer, *args: Any, **kwargs: Any) -> None:
        nonlocal left
        whole(self, *args, **kwargs)
        left -= 1
        if left == 0:
            raise CutError

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", save)
        with pytest.raises(CutError):
            train(recipe, folder)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_cut_run_ends_as_a_whole_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(ADAPTERS[name])
    train(recipe, tmp_path / "whole")
    train_and_cut(recipe, tmp_path / "cut", 5, monkeypatch)
    train(recipe, tmp_path / "cut", resume=True)
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert set(one) == set(two)
    assert all(torch.equal(one[n], two[n]) for n in one)
    # What is frozen is what it was, what learns moved.
    torch.manual_seed(recipe.seed)
    start = build_pretrained(recipe.model)[0].state_dict()
    adapters = {n for n in one if owner(n).startswith("adapter")}
    assert {owner(n) for n in adapters} == {"adapter", "adapters.image"}
    assert all(torch.equal(start[n.replace(".base_layer.", ".")], v) for n, v in one.items()
               if n not in adapters and not n.startswith("projectors."))  # fmt: skip
    assert all(bool(one[n].any()) for n in adapters if "lora_B" in n)
    assert not any(torch.equal(start[n], one[n]) for n in adapters & set(start))
    # Answering merges what can be merged.
    loaded = load_model(tmp_path / "whole" / "model")[0].state_dict()
    changed = {n.partition(".")[0] for n, v in loaded.items() if not torch.equal(v, start[n])}
    assert changed == {"encoders", "backbone", "projectors"}


def test_dropout_acts_on_adapters_that_learn() -> None:
    """peft asks the layer, not its dropout, whether it is training."""
    from sensorium.model.adapter import inject_adapter
    from sensorium.model.learning import Learn, learning_modules

    for dora in (False, True):
        config = recipe_of(f"{{rank: 2, dropout: 0.5, dora: {str(dora).lower()}}}").model
        model = build_pretrained(config)[0].eval()
        inject_adapter(model)
        model.eval()
        modules = learning_modules(model, Learn(part="adapter", lr=1.0))
        layer: Any = model.backbone.lm.model.layers[0].self_attn.q_proj
        torch.nn.init.normal_(layer.lora_B["default"].weight)
        x = torch.randn(4, layer.in_features)
        assert torch.equal(layer(x), layer(x))
        for module in modules:
            module.train()
        assert not torch.equal(layer(x), layer(x))
        assert not model.encoders.training
        eye = learning_modules(model, Learn(part="adapters.image", lr=1.0))
        assert {n for n, m in model.named_modules() if m in eye} == {
            n for n, _ in model.named_modules() if n.startswith("encoders.") and n.rpartition(".")[2] in ("fc1", "fc2", "q_proj")}  # fmt: skip

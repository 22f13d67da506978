"""Does the tiny form of every published recipe train what it says, and nothing else?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sensorium.interop.assemble import build_pretrained
from sensorium.model.adapter import inject_adapter
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.processor import Processor
from sensorium.recipes import TINY_FORMS
from sensorium.text.tokenizer import Tokenizer
from sensorium.training.config import Recipe, StageConfig
from sensorium.training.preflight import check_stages
from sensorium.training.trainer import Trainer, TrainerOptions


def first_loss(recipe: Recipe, model: MultimodalModel, tokenizer: Tokenizer) -> float:
    """Of the first batch of a recipe's only stage."""
    plans, _ = check_stages(recipe, model, Processor(recipe.model, tokenizer), precision="fp32")
    return plans[0].loss


def snapshot(model: MultimodalModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def named(model: MultimodalModel, stage: StageConfig) -> set[str]:
    """The parameters that a stage's `learns` names, found by their names alone."""
    places = [".".join(filter(None, (x.part, x.module))) + "." for x in stage.learns]
    adapter = model.config.adapter
    mark = {"lora": ".lora_", "adaption_prompt": ".adaption_prompt."}[adapter.kind] if adapter else ""
    places = [mark if place == "adapter." else f"^{place}" for place in places]
    # A part may be one parameter: `newlines.image`.
    found = {n: [place in f"^{n}." for place in places] for n, _ in model.named_parameters()}
    assert all(any(column) for column in zip(*found.values(), strict=True)), stage.learns
    return {name for name, hits in found.items() if any(hits)}


TOWER = "encoders.image.tower."
# What learns and reaches no answer, in the originals too.
WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    # Behind the last layer only the queries are read: what it does with words is lost.
    "instructblip": ("projectors.image.layers.1.text.",),
    "instructblip-t5": ("projectors.image.layers.1.text.",),
    # Features come from in front of the tower's last layer, or of its final norm.
    "llava-next": (f"{TOWER}encoder.layers.2.", f"{TOWER}post_layernorm."),
    "llava-onevision": (f"{TOWER}post_layernorm.",),
}


@pytest.mark.parametrize("name", TINY_FORMS)
def test_each_stage_trains_what_it_says(
    name: str, tmp_path: Path, data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensorium.training.trainer.draw_curve", lambda *_: None)
    recipe: Recipe = TINY_FORMS.find(name)()
    torch.manual_seed(recipe.seed)
    model, tokenizer = build_pretrained(recipe.model)
    inject_adapter(model)
    for stage in recipe.stages:
        # One stage at a time over the same model, so that it can be looked at in between.
        alone = recipe.model_copy(update={"stages": (stage,)})
        loss, before = first_loss(alone, model, tokenizer), snapshot(model)
        options = TrainerOptions(folder=tmp_path / stage.name, cache=tmp_path / "cache")
        Trainer(alone, model, tokenizer, options).run()
        learning = named(model, stage)
        # Tied matrices have two names; a frozen one must not be the other name of a learning one.
        pointers = {p.data_ptr() for n, p in model.named_parameters() if n in learning}
        for key, value in model.state_dict().items():
            if key.startswith(WITHOUT_EFFECT.get(name, ("-",))):
                continue
            same = torch.equal(before[key], value)
            if value.data_ptr() in pointers:
                assert not same, f"{stage.name}: {key} learns and has not moved"
            else:
                assert same, f"{stage.name}: {key} is frozen and has moved"
        after = first_loss(alone, model, tokenizer)
        assert after < loss - 0.005, stage.name

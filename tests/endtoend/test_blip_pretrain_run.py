"""BLIP's pretraining can be cut anywhere, and its relatives begin with what it learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.interop.start import start_from
from sensorium.model.config import ModelConfig
from sensorium.nn.pretrained import read_file
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.training import stage_run
from sensorium.training.config import Recipe
from sensorium.training.log import read_log
from sensorium.training.optimiser import rate
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions

STEPS = 6


def train(wanted: Recipe, folder: Path, *, resume: bool = False) -> None:
    options = TrainerOptions(folder=folder, cache=folder.parent / "cache", resume=resume)
    train_recipe(wanted, lambda: build_pretrained(wanted.model), save_model, options)


def recipe(name: str) -> Recipe:
    small: Recipe = TINY_FORMS.find(name)()
    (stage,) = small.stages
    return small.override([f"stages.{stage.name}.{x}" for x in (f"steps={STEPS}", "checkpoint_every=1", "accumulate=2")])


def tensors(folder: Path) -> dict[str, Tensor]:
    return read_file(folder / "checkpoint" / "weights.safetensors")


@pytest.mark.parametrize("name", ["blip", "blip-retrieval"])
def test_a_cut_run_resumes_bit_for_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_home: Path
) -> None:
    """Slow copy, queue, its place and what was seen included."""
    train(recipe(name), tmp_path / "whole")
    steps = {"done": 0}
    real = stage_run.StageRun._logged_step

    def cut(self: Any, *rest: Any) -> Any:
        if steps["done"] == 3:
            raise KeyboardInterrupt
        steps["done"] += 1
        return real(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(stage_run.StageRun, "_logged_step", cut)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(name), tmp_path / "cut")
    halfway = tensors(tmp_path / "cut")
    torch.manual_seed(99)
    train(recipe(name), tmp_path / "cut", resume=True)
    one, two = tensors(tmp_path / "whole"), tensors(tmp_path / "cut")
    assert set(one) == set(two)
    assert all(torch.equal(one[key], two[key]) for key in one)
    curves = [[(x["loss"], x["grad_norm"]) for x in read_log(tmp_path / run / "log.jsonl")] for run in ("whole", "cut")]
    assert curves[0] == curves[1]
    # Two batches of four pairs in each step, in a ring of eight.
    assert int(one["objective.seen"]) == 8 * STEPS
    assert int(halfway["objective.seen"]) == 8 * 3
    assert int(one["objective.pointer"]) == 0
    for key in ("objective.pictures_QJ", "objective.texts_QJ", "objective.temperature.value"):
        assert not torch.equal(one[key], halfway[key]), key
    # The copy lags behind.
    weight = "encoders.image.tower.encoder.layers.0.mlp.fc1.weight"
    before, after, slow = halfway[weight], one[weight], one[f"objective.slow.{weight}"]
    assert float((slow - after).norm()) > float((slow - before).norm()) > 0
    model, _ = load_model(tmp_path / "cut" / "model")
    assert not hasattr(model, "objective")
    assert model.config == recipe(name).model


def pretrained(folder: Path, *changes: str) -> dict[str, Tensor]:
    """A random model of the pretraining recipe, saved; its tensors by all their names."""
    torch.manual_seed(1)
    model, tokenizer = build_pretrained(TINY_FORMS.find("blip")().model.override(list(changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    save_model(model, tokenizer, folder, learnt=set())
    return {name: value.clone() for name, value in model.state_dict().items()}


# The fine-tuned recipe's names of the backbone, and the pretrained ones.
NAMES = {
    "blip-caption": {"lm.": "lm.text_decoder."},
    "blip-vqa": {"lm.text_encoder.": "lm.text_encoder.", "lm.text_decoder.": "lm.text_decoder."},
    "blip-retrieval": {"lm.": "lm."},
}


@pytest.mark.parametrize("name", NAMES)
def test_relatives_begin_with_what_it_learnt(name: str, tmp_path: Path) -> None:
    config: ModelConfig = TINY_FORMS.find(name)().model
    # Pictures of 48 pixels instead of 32: 6 by 6 patches.
    config = config.override(["lanes.image.encoder.image_size_px=48"])
    width = config.backbone.d_model
    known = pretrained(tmp_path / "blip", f"backbone.arch.hidden_size={width}")
    model, _ = build_pretrained(config)
    assert start_from(model, tmp_path / "blip").new == []
    positions = "encoders.image.tower.embeddings.position_embedding"
    for key, value in model.state_dict().items():
        there = key
        for ours, theirs in NAMES[name].items():
            if key.startswith(f"backbone.{ours}"):
                there = f"backbone.{theirs}{key.removeprefix(f'backbone.{ours}')}"
        if key != positions:
            assert torch.equal(value, known[there]), key
    old, new = known[positions], model.state_dict()[positions]
    assert torch.equal(new[:, 0], old[:, 0])
    image = old[0, 1:].T.reshape(1, 32, 4, 4)
    wanted = F.interpolate(image, size=(6, 6), mode="bicubic", align_corners=False)
    torch.testing.assert_close(new[0, 1:].T.reshape(1, 32, 6, 6), wanted)


def test_a_rate_that_falls_by_one_factor() -> None:
    """By 0.85 in each of 20 epochs, behind a warm-up."""
    (stage,) = RECIPES.find("blip")().stages
    schedule = stage.schedule
    rates = [rate(schedule, 3000 + step, 23_000) for step in (0, 1000, 2000, 20_000)]
    assert rates == pytest.approx([1.0, 0.85, 0.85**2, 0.85**20])
    assert rate(schedule, 1499, 23_000) == pytest.approx(0.5)


def test_a_decoder_of_its_own_is_not_taken_from_a_tower(tmp_path: Path) -> None:
    """Retrieval has none to lend."""
    model, tokenizer = build_pretrained(TINY_FORMS.find("blip-retrieval")().model)
    save_model(model, tokenizer, tmp_path / "tower", learnt=set())
    captioner, _ = build_pretrained(TINY_FORMS.find("blip-caption")().model)
    before = {n: v.clone() for n, v in captioner.state_dict().items() if n.startswith("backbone.")}
    assert start_from(captioner, tmp_path / "tower").new == ["backbone"]
    assert all(torch.equal(captioner.state_dict()[n], v) for n, v in before.items())

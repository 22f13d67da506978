"""The P-Former of DLP: its shapes, its losses, and that what it was taught it teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.nn.pretrained import read_file
from sensorium.recipes import TINY_FORMS
from sensorium.training.config import Recipe
from sensorium.training.log import read_log
from sensorium.training.objectives.pformer import PFormer, PFormerConfig
from sensorium.training.objectives.sentences import nearest_word_loss
from sensorium.training.preflight import prepare_stage
from sensorium.training.run import train_recipe
from sensorium.training.trainer import Trainer, TrainerOptions

SMALL = PFormerConfig(layers=2, width=16, heads=2, mlp_width=24, words=30)


def test_as_large_as_the_original() -> None:
    """BERT-base without its pooler, `cls_proj`, `pooler.0` and `opt_proj` (pformer_opt.py)."""
    with torch.device("meta"):
        size = sum(p.numel() for p in PFormer(PFormerConfig(), 32, 2560).parameters())
    bert = 109_482_240 - (768 * 768 + 768)
    assert size == bert + (768 * 32 * 768 + 32 * 768) + (768 * 768 + 768) + (768 * 2560 + 2560)


@torch.no_grad()
def test_prompts_follow_the_first_token_and_padding_is_not_seen() -> None:
    former = PFormer(SMALL, 4, 12).eval()
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 9]])
    real = torch.tensor([[True] * 4, [True, True, True, False]])
    got = former(ids, real)
    assert got.shape == (2, 4, 12)
    alone = former(ids[1:, :3], real[1:, :3])
    torch.testing.assert_close(got[1:], alone, atol=1e-6, rtol=1e-5)
    # By hand from the state of the first token.
    state = former.encoder(input_ids=ids[:1]).last_hidden_state[0, 0]
    spread = (former.spread.weight @ state + former.spread.bias).reshape(4, 16)
    by_hand = former.out(torch.tanh(former.pool(spread)))
    torch.testing.assert_close(got[0], by_hand, atol=1e-6, rtol=1e-5)


def test_the_nearest_word_is_found() -> None:
    words = torch.tensor([[0.0, 0.0], [3.0, 3.0], [-1.0, 1.0]])
    prompts = torch.tensor([[[0.5, 0.0], [2.0, 3.0]]], requires_grad=True)
    loss = nearest_word_loss(prompts, words)
    assert abs(float(loss.detach()) - (0.25 + 1.0) / 4) < 1e-6
    loss.backward()
    assert prompts.grad is not None
    assert prompts.grad.tolist() == [[[0.25, 0.0], [-0.5, 0.0]]]


@pytest.fixture
def recipe() -> Recipe:
    names = ("sentences", "represent", "generate")
    weights = ["stages.represent.objective.weight=10", "stages.generate.objective.weight=100"]
    return TINY_FORMS.find("dlp")().override([*(f"stages.{n}.steps=3" for n in names), *weights])


def test_what_sentences_taught_is_the_teacher(
    recipe: Recipe, tmp_path: Path, data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    real = Trainer._run_stage

    def watched(self: Trainer, index: int, parts: Any) -> None:
        real(self, index, parts)
        module = parts.objective.module
        seen.append({n: v.detach().clone() for n, v in module.state_dict().items() if n.startswith("teacher.")})

    monkeypatch.setattr(Trainer, "_run_stage", watched)
    options = TrainerOptions(folder=tmp_path / "a", cache=tmp_path / "cache")
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)
    taught, *later = seen
    model, tokenizer = build_pretrained(recipe.model)
    trainer = Trainer(recipe, model, tokenizer, TrainerOptions(tmp_path / "b", tmp_path / "cache"))
    fresh = prepare_stage(recipe.stages[0], model, trainer.processor).objective.module.state_dict()
    for name, value in taught.items():
        assert not torch.equal(value, fresh[name]), name
        assert all(torch.equal(value, other[name]) for other in later), name
    lines = read_log(tmp_path / "a" / "log.jsonl")
    for line in lines:
        if line["stage"] == "represent":
            own = line["contrast"] + line["matching"] + line["writing"]
            assert abs(line["loss"] - own - 10 * line["align"]) < 1e-3 * line["loss"]
        if line["stage"] == "generate":
            assert abs(line["loss"] - line["next_token"] - 100 * line["align"]) < 1e-3 * line["loss"]
    # Nobody who answers needs the teacher.
    assert not any("objective" in n for n in read_file(tmp_path / "a" / "model" / "model.safetensors"))
    load_model(tmp_path / "a" / "model")

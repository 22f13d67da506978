"""Frozen layers in half precision while a stage computes in it: the same run, to the last bit, and the same weights behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import AutoModelForCausalLM, LlamaConfig

import sensorium.training.preflight as preflight
import sensorium.training.stage_run as stage_run
from sensorium.backbones.causal_lm import CausalLM
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.model.half_frozen import frozen_layers, half_frozen
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.training.config import Recipe
from sensorium.training.run import plan_recipe, train_recipe
from sensorium.training.trainer import TrainerOptions

FORMATS = (torch.bfloat16, torch.float16, torch.float32)
STAGES = [f"stages.{s}.{o}" for s in ("align", "instruct") for o in ("workers=0", "steps=3", "precision=bf16", "keep_precision=true")]
"""Of which the LLM is frozen in the first, and learns beside an adapter in the second."""


@pytest.fixture(params=FORMATS, ids=str)
def recipe(request: pytest.FixtureRequest, tmp_path: Path) -> Recipe:
    """The tiny recipe with an LLM whose weights lie in a folder, in this number format."""
    plain = RECIPES.find("tiny")()
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(LlamaConfig(**plain.model.backbone.arch))
    lm.to(request.param).save_pretrained(tmp_path / "lm")
    adapter = "model.adapter={kind: lora, rank: 2, targets: [q_proj, down_proj]}"
    learns = "stages.instruct.learns=[{part: adapter, lr: 0.01}, {part: projectors.image, lr: 0.001}]"
    return plain.override([f"model.backbone.weights=[{{kind: folder, path: {tmp_path / 'lm'}}}]", adapter, learns, *STAGES])


def train(recipe: Recipe, folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], nn.Module]:
    """What was saved, what was logged, and the model that learnt."""
    built: list[Any] = []

    def build() -> Any:
        built[:] = build_pretrained(recipe.model)
        return tuple(built)

    train_recipe(recipe, build, save_model, TrainerOptions(folder=folder, cache=folder / "cache"))
    lines = [{k: v for k, v in line.items() if k not in ("seconds", "time")} for line in read(folder / "log.jsonl")]
    return load_model(folder / "model")[0].state_dict(), lines, built[0]


def read(path: Path) -> list[dict[str, Any]]:
    import json

    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_run_is_the_same(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, set[torch.dtype]]] = []

    @contextmanager
    def watched(layers: Iterable[nn.Linear]) -> Iterator[None]:
        chosen = list(layers)
        before = [StorageWeakRef(layer.weight.untyped_storage()) for layer in chosen]
        with half_frozen(chosen):
            assert all(storage.expired() for storage in before), "somebody still holds what the layers had"
            seen.append((len(chosen), {layer.weight.dtype for layer in chosen}))
            yield

    for module in (stage_run, preflight):
        monkeypatch.setattr(module, "half_frozen", watched)
    weights, lines, model = train(recipe, tmp_path / "half")
    # All seven of each of the layers, in both stages, where they are tried and where they train.
    assert seen == [(7 * recipe.model.backbone.num_layers, {torch.bfloat16})] * 4

    for module in (stage_run, preflight):
        monkeypatch.setattr(module, "frozen_layers", lambda *_: [])
    plain_weights, plain_lines, plain_model = train(recipe, tmp_path / "plain")
    assert seen[4:] == [(0, set())] * 4
    assert lines == plain_lines
    assert weights.keys() == plain_weights.keys()
    assert all(torch.equal(weights[n], plain_weights[n]) for n in weights)
    # As they were loaded, whatever format they came in.
    first = {n: p for n, p in build_pretrained(recipe.model)[0].named_parameters() if n.startswith("backbone.")}
    for one in (model, plain_model):
        held = {n.replace(".base_layer", ""): p for n, p in one.named_parameters() if "lora_" not in n}
        assert {held[n].dtype for n in first} == {torch.float32}
        assert all(torch.equal(held[n], p) for n, p in first.items())


def test_what_stays_whole(recipe: Recipe) -> None:
    """Tables of words, what learns, what is saved, and layers that DoRA weighs."""
    model = build_pretrained(recipe.model)[0].requires_grad_(False)
    assert isinstance(model.backbone, CausalLM)
    every = {id(layer) for layer in frozen_layers(model, ())}
    assert id(model.backbone.lm.get_output_embeddings()) not in every
    first: Any = model.backbone.decoder_layers()[0]
    first.self_attn.q_proj.weight.requires_grad_(True)
    saved = {"backbone.lm.model.layers.0.mlp.up_proj.weight"}
    left = {id(layer) for layer in frozen_layers(model, saved)}
    assert every - left == {id(first.self_attn.q_proj), id(first.mlp.up_proj)}
    dora = build_pretrained(recipe.override(["model.adapter.dora=true"]).model)[0].requires_grad_(False)
    assert not frozen_layers(dora, ())


def test_an_error_within_restores(recipe: Recipe) -> None:
    model = build_pretrained(recipe.model)[0].requires_grad_(False)
    before = {n: p.clone() for n, p in model.named_parameters()}
    with pytest.raises(ValueError, match="within"), half_frozen(frozen_layers(model, ())):
        raise ValueError("within")
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["blip", "blip-retrieval", "blip-vqa", "seed-queries", "llava-1.5-lora"])
def test_models_of_other_kinds(name: str, tmp_path: Path) -> None:
    """Encoders of text have no head, and what losses read of it."""
    made = TINY_FORMS.find(name)()
    made = made.override([f"stages.{stage.name}.{one}" for stage in made.stages for one in ("precision=bf16", "keep_precision=true")])
    plans = plan_recipe(made, lambda: build_pretrained(made.model), TrainerOptions(folder=tmp_path, cache=tmp_path))
    assert {plan.number_format.precision for plan in plans} == {"bf16"}


def test_what_an_earlier_stage_taught_stays_whole(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in checkpoints from then on; the plan says what the stage does."""
    taught = "stages.align.learns=[{part: backbone, lr: 0.001}, {part: projectors.image, lr: 0.001}]"
    frozen = "stages.instruct.learns=[{part: projectors.image, lr: 0.001}]"
    turned: list[int] = []

    @contextmanager
    def counted(layers: Iterable[nn.Linear]) -> Iterator[None]:
        turned.append(len(list(layers)))
        yield

    monkeypatch.setattr(stage_run, "half_frozen", counted)
    made, plans = recipe.override([taught, frozen, "model.adapter=null"]), list[Any]()
    options = TrainerOptions(folder=tmp_path / "taught", cache=tmp_path / "cache", on_plan=plans.append)
    train_recipe(made, lambda: build_pretrained(made.model), save_model, options)
    assert turned == [plan.halved for plan in plans] == [0, 0]

"""QLoRA: a language model in four bits computes what its weights read back as, adapters learn beside it through a
whole run, and what cannot be done is refused. Where bitsandbytes is missing only the refusals are tested."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.llama_steps import can_step
from sensorium.core.errors import ConfigError, MissingDependencyError
from sensorium.core.weights import FolderSource
from sensorium.interop.adapter_export import export_adapter
from sensorium.interop.adapter_import import import_adapter
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.gguf_export import export_gguf
from sensorium.interop.hf import export_hf
from sensorium.interop.merged import merge
from sensorium.interop.saved import load_model, save_model
from sensorium.model.adapter import inject_adapter
from sensorium.model.check import check_quantised_run
from sensorium.model.config import AdaptionPromptConfig, BiasNormConfig, LoraConfig
from sensorium.model.learning import count_parameters
from sensorium.model.multimodal import MultimodalModel
from sensorium.recipes import RECIPES
from sensorium.recipes.sizes import part_sizes
from sensorium.training.checkpoint import load_checkpoint
from sensorium.training.config import Recipe
from sensorium.training.run import plan_recipe, train_recipe
from sensorium.training.trainer import Trainer, TrainerOptions

needs_library = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
IDS = torch.randint(3, 250, (2, 11), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm")
    torch.manual_seed(0)
    CausalLMConfig.tiny().build().lm.save_pretrained(folder)
    return folder


def recipe_of(source: Path, adapter: str = "{rank: 4, alpha: 8}", quantise: str | None = "nf4", *more: str) -> Recipe:
    """The tiny recipe over a language model that has a source."""
    recipe = RECIPES.find("tiny")()
    backbone = recipe.model.backbone.model_copy(
        update={"weights": (FolderSource(path=str(source)),), "quantise": quantise}
    )
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"backbone": backbone})})
    return recipe.override([f"model.adapter={adapter}", "stages.instruct.learns=[{part: adapter, lr: 0.02}]",
                            "stages.align.steps=2", "stages.instruct.steps=4", *more])  # fmt: skip


def logits(model: MultimodalModel) -> Tensor:
    backbone: Any = model.backbone
    return model.logits(backbone(backbone.embed(IDS), positions_BT=torch.arange(11).expand(2, 11)))


@torch.no_grad()
def read_back(model: MultimodalModel) -> int:
    """Put the weights that four bits stand for into plain layers; how many."""
    from bitsandbytes.functional import dequantize_4bit

    lm: Any = model.backbone.lm
    found = [(n, m) for n, m in lm.named_modules() if type(m).__name__ == "Linear4bit"]
    for name, layer in found:
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        plain.weight.copy_(dequantize_4bit(layer.weight.data, layer.weight.quant_state))
        setattr(lm.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], plain)
    return len(found)


def options(folder: Path, *, resume: bool = False) -> TrainerOptions:
    return TrainerOptions(folder=folder, cache=folder.parent / "cache", resume=resume)


@needs_library
def test_four_bits_compute_what_they_read_back_as(source: Path) -> None:
    config = recipe_of(source, "null").model
    model = build_pretrained(config)[0]
    exact = build_pretrained(recipe_of(source, "null", None).model)[0]
    assert not can_step(model.backbone.lm)
    with torch.no_grad():
        got = logits(model)
        assert read_back(model) == 14
        torch.testing.assert_close(got, logits(model), atol=1e-5, rtol=1e-5)
        # Near the source's, and not the same.
        assert 1e-4 < (got - logits(exact)).abs().max() < 1.0


@needs_library
@pytest.mark.parametrize("dora", [False, True])
def test_adapters_beside_four_bits_and_their_gradients(dora: bool, source: Path) -> None:
    """The same as beside plain weights that hold what four bits stand for."""
    config = recipe_of(source, f"{{rank: 4, alpha: 8, dora: {str(dora).lower()}}}").model
    one, two = build_pretrained(config)[0], build_pretrained(config)[0]
    read_back(two)
    outputs: list[Tensor] = []
    for model in (one, two):
        torch.manual_seed(3)
        inject_adapter(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name and parameter.is_floating_point())
            if "lora_A" in name or "lora_B" in name:
                torch.nn.init.normal_(parameter, 0, 0.1)
        outputs.append(logits(model))
        outputs[-1].pow(2).sum().backward()
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    gradients = [{n: p.grad for n, p in m.named_parameters() if p.requires_grad} for m in (one, two)]
    assert set(gradients[0]) == set(gradients[1])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-3, rtol=1e-3)
        assert gradient is not None
        assert bool(gradient.any())


@needs_library
@pytest.mark.parametrize("adapter", ["{rank: 4, alpha: 8, dropout: 0.2}", "{rank: 4, dora: true}", "{kind: prefix, length: 3}"])
def test_a_run_learns_resumes_saves_and_answers(adapter: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(source, adapter, "nf4", "stages.instruct.max_length=500", "stages.instruct.checkpoint_every=1")
    build = lambda: build_pretrained(recipe.model)  # noqa: E731
    train_recipe(recipe, build, save_model, options(tmp_path / "whole"))
    save, left = Trainer.save, 3

    def cut(self: Trainer, *args: Any, **kwargs: Any) -> None:
        nonlocal left
        save(self, *args, **kwargs)
        left -= 1
        if not left:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", cut)
        with pytest.raises(KeyboardInterrupt):
            train_recipe(recipe, build, save_model, options(tmp_path / "cut"))
    train_recipe(recipe, build, save_model, options(tmp_path / "cut", resume=True))
    whole, resumed = (load_checkpoint(tmp_path / run / "checkpoint") for run in ("whole", "cut"))
    assert whole is not None
    assert resumed is not None
    assert set(whole.weights) == set(resumed.weights)
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())
    assert not any(name.endswith((".base_layer.weight", "absmax", "quant_map")) for name in whole.weights)
    assert any(bool(v.any()) for n, v in whole.weights.items() if "lora_B" in n or "prefix" in n)
    loaded = load_model(tmp_path / "whole" / "model")[0]
    fresh = build_pretrained(recipe.model)[0]
    inject_adapter(fresh)
    state = fresh.state_dict()
    with torch.no_grad():
        for name, value in whole.weights.items():
            state[name].copy_(value)
        assert torch.equal(logits(loaded), logits(fresh.eval()))
        assert not torch.allclose(logits(loaded), logits(build_pretrained(recipe_of(source, "null").model)[0]), atol=1e-3)


@needs_library
def test_the_plan_counts_weights_and_their_memory(source: Path, tmp_path: Path) -> None:
    small, large = (plan_recipe(recipe, lambda recipe=recipe: build_pretrained(recipe.model), options(tmp_path / "x"))[1]
                    for recipe in (recipe_of(source), recipe_of(source, quantise=None)))  # fmt: skip
    assert small.parts == large.parts
    assert part_sizes(recipe_of(source).model)["backbone"] == {p: n for p, n, _ in small.parts}["backbone"]
    model = build_pretrained(recipe_of(source, "null").model)[0]
    packed = sum(p.numel() * p.element_size() for p in model.backbone.parameters())
    counted = {p: n for p, n, _ in count_parameters(model)}["backbone"]
    # Half a byte for a weight of a layer; the embedding's stay at four.
    assert packed == 4 * 512 * 48 + 4 * 5 * 48 + (counted - 512 * 48 - 5 * 48) // 2
    assert small.memory_mb <= large.memory_mb


@needs_library
def test_weights_that_are_no_numbers_are_not_written(source: Path, tmp_path: Path) -> None:
    recipe = recipe_of(source)
    model, tokenizer = build_pretrained(recipe.model)
    inject_adapter(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    save_model(model, tokenizer, tmp_path / "m", learnt=set())
    for go in (lambda: merge(tmp_path / "m", tmp_path / "x"), lambda: export_hf(tmp_path / "m", tmp_path / "x", "llava"),
               lambda: export_gguf(tmp_path / "m", tmp_path / "x")):  # fmt: skip
        with pytest.raises(ConfigError, match=r"whose language model is quantised.*--adapter-only"):
            go()
    # The way that the message names.
    plain, _ = build_pretrained(recipe_of(source, "null", None).model)
    save_model(plain, tokenizer, tmp_path / "plain", learnt=set())
    export_adapter(tmp_path / "m", tmp_path / "a")
    back = import_adapter(tmp_path / "a", tmp_path / "plain", tmp_path / "whole")
    assert isinstance(back.adapter, LoraConfig)
    assert merge(tmp_path / "whole", tmp_path / "merged") == 14


@needs_library
def test_the_backbone_cannot_learn_in_four_bits(source: Path, tmp_path: Path) -> None:
    recipe = recipe_of(source).override(["stages.instruct.learns=[{part: backbone, lr: 0.1}]"])
    with pytest.raises(ConfigError, match=r"the backbone learns, and is quantised.*expected part adapter"):
        plan_recipe(recipe, lambda: build_pretrained(recipe.model), options(tmp_path / "x"))


@needs_library
def test_without_a_source_it_could_not_be_made_again() -> None:
    with pytest.raises(ConfigError, match="without a source of weights"):
        CausalLMConfig.tiny().model_copy(update={"quantise": "nf4"}).build()


def test_refusals_that_need_no_library(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="on mps; expected one of cpu, cuda, xpu"):
        check_quantised_run(torch.device("mps"), ["adapter"])
    model = recipe_of(source, "null").model
    for adapter in (AdaptionPromptConfig(layers=1, length=2), BiasNormConfig()):
        with pytest.raises(ConfigError, match=f"{adapter.kind} with a quantised backbone"):
            MultimodalModel(model.model_copy(update={"adapter": adapter}))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependencyError, match=r"\[quantised\]"):
        build_pretrained(model)
    # Sizes are known without it.
    plain = recipe_of(source, "null", None).model
    assert part_sizes(model) == part_sizes(plain)

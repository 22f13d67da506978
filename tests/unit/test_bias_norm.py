"""Biases and norms as an adapter: zero biases change nothing, what learns is what is named, and a saved model
comes back whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.llama_steps import can_step
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.gguf_export import export_gguf
from sensorium.interop.hf import export_hf
from sensorium.interop.saved import load_model, save_model
from sensorium.interop.start import start_from
from sensorium.model.config import AdaptionPromptConfig, BiasNormConfig, ModelConfig
from sensorium.model.learning import Learn, count_parameters, own_names, set_learning
from sensorium.model.multimodal import MultimodalModel
from sensorium.recipes import RECIPES

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 512,
         "max_position_embeddings": 64}  # fmt: skip
LLMS: dict[str, dict[str, Any]] = {
    "llama": SMALL | {"intermediate_size": 48, "num_key_value_heads": 2},
    "qwen2": SMALL | {"intermediate_size": 48, "num_key_value_heads": 2},
    "qwen3": SMALL | {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8},
    "opt": SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 512, "n_positions": 64},
    "gpt_neox": SMALL | {"intermediate_size": 48},
}
IDS = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(0))


def config_of(llm: str, adapter: Any) -> ModelConfig:
    arch = {"model_type": llm, **LLMS[llm]}
    return ModelConfig(backbone=CausalLMConfig(arch=arch, tokenizer="bytes"), adapter=adapter)


def built(llm: str, adapter: Any) -> MultimodalModel:
    torch.manual_seed(0)
    return MultimodalModel(config_of(llm, adapter)).eval()


@torch.no_grad()
def logits(model: MultimodalModel) -> Tensor:
    positions = torch.arange(IDS.shape[1]).expand_as(IDS)
    backbone: Any = model.backbone
    return model.logits(backbone(backbone.embed(IDS), positions_BT=positions))


@pytest.mark.parametrize("llm", LLMS)
def test_zero_biases_change_nothing_and_any_llm_learns_by_them(llm: str) -> None:
    plain, model = built(llm, None), built(llm, BiasNormConfig())
    assert torch.equal(logits(plain), logits(model))
    ((_, pairs),) = set_learning(model, (Learn(part="adapter", lr=0.1),))
    learning = {name for name, _ in pairs}
    assert learning == model.tuned == {n for n, p in model.named_parameters() if p.requires_grad}
    lines = {n for n, m in model.named_modules() if "norm" in type(m).__name__.lower()}
    assert all(name.endswith(".bias") or name.rpartition(".")[0] in lines for name in learning)
    # Everything else is the LLM's.
    sizes = {part: (total, moving) for part, total, moving in count_parameters(model)}
    assert sizes["adapter"] == (sum(p.numel() for _, p in pairs),) * 2
    assert sizes["backbone"][1] == 0
    with torch.no_grad():
        for _, parameter in pairs:
            parameter.add_(0.1)
    assert not torch.allclose(logits(plain), logits(model), atol=1e-3)


@torch.no_grad()
def test_learnt_biases_and_norms_are_transformers_own() -> None:
    """Llama in transformers has biases as an option: the same function, once the values are put there."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = built("llama", BiasNormConfig())
    for name, parameter in model.named_parameters():
        if name in model.tuned:
            parameter.normal_()
    theirs = LlamaForCausalLM(LlamaConfig(**LLMS["llama"], attention_bias=True, mlp_bias=True)).eval()
    missing = theirs.load_state_dict(model.backbone.lm.state_dict(), strict=False)
    assert not missing.unexpected_keys
    # Keys and values have none in LLaMA-Adapter V2.
    assert {k.rpartition("self_attn.")[2] for k in missing.missing_keys} == {"k_proj.bias", "v_proj.bias"}
    state = theirs.state_dict()
    for key in missing.missing_keys:
        state[key].zero_()
    torch.testing.assert_close(logits(model), theirs(IDS).logits, atol=1e-5, rtol=1e-5)


def test_only_biases_that_are_there() -> None:
    model = built("opt", BiasNormConfig(added=(), norms=False))
    assert model.tuned == {n for n, _ in model.named_parameters() if n.endswith(".bias")}
    with pytest.raises(ConfigError, match="no biases or norms in CausalLM"):
        built("llama", BiasNormConfig(added=("nothing",), norms=False))


def test_beside_prompts_they_are_a_part_of_their_own() -> None:
    model = built("llama", AdaptionPromptConfig(layers=1, length=3, tuning=BiasNormConfig()))
    groups = set_learning(model, (Learn(part="adapter", lr=0.1), Learn(part="tuning", lr=0.2)))
    prompts, tuned = ({name for name, _ in pairs} for _, pairs in groups)
    assert tuned == model.tuned
    assert all(".adaption_prompt." in name for name in prompts)
    assert len(prompts) == 2
    with pytest.raises(ConfigError, match="no part 'tuning'"):
        set_learning(built("llama", BiasNormConfig()), (Learn(part="tuning", lr=0.1),))


def test_fused_steps_do_not_lose_biases() -> None:
    assert can_step(built("llama", None).backbone.lm)
    assert not can_step(built("llama", BiasNormConfig()).backbone.lm)
    assert can_step(built("llama", BiasNormConfig(added=())).backbone.lm)


def saved(model: MultimodalModel, folder: Path) -> Path:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in model.tuned:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    save_model(model, build_pretrained(model.config)[1], folder, set(model.tuned))
    return folder


@pytest.mark.parametrize("adapter", [BiasNormConfig(), AdaptionPromptConfig(layers=1, length=3, tuning=BiasNormConfig())])
def test_a_saved_model_comes_back_and_can_be_started_from(adapter: Any, tmp_path: Path) -> None:
    model = built("llama", adapter)
    assert model.tuned <= own_names(model)
    folder = saved(model, tmp_path / "a")
    again, _ = load_model(folder)
    assert torch.equal(logits(model), logits(again))
    torch.manual_seed(9)
    fresh = MultimodalModel(model.config).eval()
    assert start_from(fresh, folder).new == []
    assert torch.equal(logits(model), logits(fresh))


def test_a_start_neither_loses_them_nor_asks_for_them(tmp_path: Path) -> None:
    folder = saved(built("llama", BiasNormConfig()), tmp_path / "a")
    with pytest.raises(WeightsError, match="biases and norms have no place"):
        start_from(built("llama", None), folder)
    plain = built("llama", None)
    save_model(plain, build_pretrained(plain.config)[1], tmp_path / "b", set())
    torch.manual_seed(9)
    model = MultimodalModel(config_of("llama", BiasNormConfig())).eval()
    assert start_from(model, tmp_path / "b").new == []
    assert torch.equal(logits(model), logits(plain))


def test_foreign_layouts_refuse_what_they_have_no_place_for(tmp_path: Path) -> None:
    folder = saved(built("llama", BiasNormConfig()), tmp_path / "a")
    with pytest.raises(ConfigError, match="biases of its own"):
        export_hf(folder, tmp_path / "b", "llava")
    with pytest.raises(ConfigError, match="biases of its own"):
        export_gguf(folder, tmp_path / "c")


def test_a_stage_trains_them_alone(tmp_path: Path) -> None:
    from sensorium.training.run import train_recipe
    from sensorium.training.trainer import TrainerOptions

    recipe = RECIPES.find("tiny")().override(
        ("model.adapter={kind: bias_norm}", "stages.align.steps=1", "stages.instruct.steps=3",
         "stages.instruct.learns=[{part: adapter, lr: 0.01}]")
    )
    options = TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache")
    torch.manual_seed(recipe.seed)
    before = {n: v.clone() for n, v in build_pretrained(recipe.model)[0].backbone.state_dict().items()}
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)
    model, _ = load_model(tmp_path / "run" / "model")
    moved = {f"backbone.{n}" for n, v in model.backbone.state_dict().items() if not torch.equal(before[n], v)}
    assert moved == model.tuned

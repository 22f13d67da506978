"""What transformers' config classes would swallow is an error where people write it, and only there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sensorium.api import find_model
from sensorium.backbones.causal_lm import CausalLMConfig, transformers_config
from sensorium.backbones.cross_lm import CrossLMConfig
from sensorium.backbones.seq2seq_lm import Seq2SeqLMConfig
from sensorium.cli.main import app
from sensorium.cli.training import find_recipe
from sensorium.core.errors import ConfigError
from sensorium.interop.saved import load_model
from sensorium.model.arch_keys import check_arch
from sensorium.recipes import RECIPES
from sensorium.training.config import Recipe
from sensorium.training.run import plan_recipe, train_recipe
from sensorium.training.trainer import TrainerOptions


@pytest.mark.parametrize(
    ("arch", "key", "meant"),
    [
        ({"model_type": "llama", "hiden_size": 48}, "hiden_size", "hidden_size"),
        ({"model_type": "gpt2", "n_head_": 4}, "n_head_", "n_head"),
        ({"model_type": "mpt", "attn_config": {"qk_lnn": True}}, "attn_config.qk_lnn", "qk_ln"),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": 2.0, "thetta": 3}},
         "rope_scaling.thetta", "rope_theta"),
    ],
)  # fmt: skip
def test_a_misspelt_key_is_named_with_the_one_that_is_meant(arch: dict[str, Any], key: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.backbone\.arch: .*'{key}' \(did you mean '{meant}'"):
        check_arch(CausalLMConfig(arch=arch))


def test_every_bad_key_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"'num_hiden_layers'.*'vocab_sise'"):
        check_arch(CausalLMConfig(arch={"model_type": "llama", "num_hiden_layers": 2, "vocab_sise": 3}))
    for kind in (CrossLMConfig, Seq2SeqLMConfig):
        tiny = kind.tiny()
        with pytest.raises(ConfigError, match="'dropuot'"):
            check_arch(tiny.model_copy(update={"arch": tiny.arch | {"dropuot": 0.5}}))


@pytest.mark.parametrize(
    "arch",
    [
        {"model_type": "gpt2", "hidden_size": 48, "num_hidden_layers": 2},  # Names that the class maps.
        {"model_type": "llama", "rope_theta": 1e6, "torch_dtype": "float16", "num_labels": 3, "_name_or_path": "x"},
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "use_cache": False, "temperature": 0.5},
        {"model_type": "gpt_neox", "rotary_pct": 0.25, "rotary_emb_base": 1000},
        {"model_type": "t5", "decoder_start_token_id": 0, "tie_word_embeddings": False},
        {"model_type": "mpt", "attn_config": {"model_type": "", "attn_pdrop": 0}},
        {"model_type": "gemma3_text", "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}},
    ],
)  # fmt: skip
def test_keys_that_are_read_are_no_error(arch: dict[str, Any]) -> None:
    check_arch(CausalLMConfig(arch=arch))


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "gemma2", "gemma3_text", "gpt2", "opt", "mpt",
                                        "gpt_neox", "phi3", "qwen3", "t5", "blip_text_model", "kosmos_2_text_model"])  # fmt: skip
def test_what_transformers_writes_is_known(model_type: str) -> None:
    check_arch(CausalLMConfig(arch=transformers_config({"model_type": model_type}).to_dict()))


def test_no_shipped_recipe_has_an_unread_key() -> None:
    for name in RECIPES:
        check_arch(RECIPES.find(name)().model.backbone)


def test_values_that_do_not_fit_are_errors_of_the_config() -> None:
    for bad in ({"hidden_size": "wide"}, {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}):
        with pytest.raises(ConfigError, match=r"^backbone\.arch: transformers cannot build 'llama'"):
            transformers_config({"model_type": "llama", **bad})


def _misspelt(folder: Path) -> Path:
    values = find_recipe("nano", []).to_dict()
    values["model"]["backbone"]["arch"]["num_atention_heads"] = 2
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


def test_the_command_line_refuses_it_before_weights_are_read(tmp_path: Path) -> None:
    file = _misspelt(tmp_path)
    changed = 'model.backbone.arch={"model_type": "llama", "hiden_size": 64}'
    for command in (["train", str(file), "--plan-only"], ["recipe", "show", str(file)]):
        said = CliRunner().invoke(app, command).exception
        assert isinstance(said, ConfigError)
        assert "model.backbone.arch: unknown key 'num_atention_heads' (did you mean 'num_attention_heads'" in str(said)
    said = CliRunner().invoke(app, ["train", "nano", changed, "--plan-only"]).exception
    assert "'hiden_size' (did you mean 'hidden_size'" in str(said)


def test_python_refuses_it_before_the_model_is_built(tmp_path: Path) -> None:
    recipe = Recipe.load(_misspelt(tmp_path))

    def build() -> Any:
        raise AssertionError("built")

    def save(*_: Any) -> None:
        raise AssertionError("saved")

    options = TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match="num_atention_heads"):
        plan_recipe(recipe, build, options)
    with pytest.raises(ConfigError, match="num_atention_heads"):
        train_recipe(recipe, build, save, options)


def test_a_saved_model_with_keys_that_nobody_reads_still_loads(tmp_path: Path) -> None:
    """Such come from foreign config.json files, which name what only their own code reads."""
    shutil.copytree(find_model("nano"), tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values["model"]["backbone"]["arch"]["use_flash_attn"] = True
    file.write_text(json.dumps(values), encoding="utf-8")
    model, _ = load_model(tmp_path / "model")
    with pytest.raises(ConfigError, match="use_flash_attn"):
        check_arch(model.config.backbone)

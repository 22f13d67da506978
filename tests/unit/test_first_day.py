"""What a new user gets wrong on the first day is an error that says what to do, and what they type does what
the docs say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from sensorium.api import Model
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.cli.main import app
from sensorium.cli.missing import absent_weights, check_data
from sensorium.core.errors import ConfigError, DataError, WeightsError
from sensorium.interop.assemble import build_pretrained, part_folders
from sensorium.interop.families import FAMILIES
from sensorium.interop.gguf_vocabulary import vocabulary
from sensorium.interop.hf import read_hf
from sensorium.interop.saved import save_model
from sensorium.model.config import ModelConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.pretrained import read_folder
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.recipes.tiny import tiny_model
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.text.tokenizer import Tokenizer
from sensorium.training.config import Recipe


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout  # Libraries warn beside it.


def picture(folder: Path) -> str:
    Image.new("RGB", (20, 30), (200, 30, 30)).save(folder / "red.png")
    return str(folder / "red.png")


def test_a_recipe_names_all_that_is_missing_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    recipe: Recipe = RECIPES.find("llava-1.5")().override(
        ["model.backbone.weights=[{kind: folder, path: no-llm}]",
         "model.lanes.image.encoder.weights=[{kind: folder, path: no-tower}]"]
    )  # fmt: skip
    with pytest.raises(DataError) as caught:
        check_data(recipe)
    for missing in (
        "stages.align.data.0.path: data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json",
        "stages.instruct.data.0.media_root: data",
        "model.backbone.weights: folder no-llm",
        "model.lanes.image.encoder.weights: folder no-tower",
    ):
        assert missing in str(caught.value)
    # Weights may still be fetched: alone they stop nothing here, and building names both parts.
    tiny: Recipe = TINY_FORMS.find("llava-1.5")()
    check_data(tiny)
    assert absent_weights(tiny) == []
    with pytest.raises(WeightsError, match=r"(?s)2 parts have no weights.*backbone.*no-llm.*encoders\.image.*no-tower"):
        part_folders(recipe.model)


def test_a_misspelt_part_and_the_keys_of_a_lane() -> None:
    text = RECIPES.find("llava-1.5")().to_yaml()
    with pytest.raises(ConfigError, match=r"no part 'backbon' to train; did you mean 'backbone'"):
        Recipe.from_dict(yaml.safe_load(text.replace("part: backbone", "part: backbon", 1)))
    with pytest.raises(ConfigError, match=r"projecter' \(did you mean 'projector'"):
        Recipe.from_dict(yaml.safe_load(text.replace("projector:", "projecter:", 1)))
    with pytest.raises(ConfigError, match="'clip-l-336' has no tiny form"):
        run("recipe", "show", "clip-l-336/tiny")


def test_the_page_on_exchange_lists_every_family() -> None:
    page = (Path(__file__).parents[2] / "docs" / "exchange.md").read_text(encoding="utf-8")
    assert [name for name in FAMILIES if f"`{name}`" not in page] == []


@pytest.mark.parametrize("text", ['{"a":', '{"a": 1}'])
def test_a_damaged_tokenizer(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(WeightsError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_a_config_without_its_parts(tmp_path: Path) -> None:
    config: dict[str, Any] = {"model_type": "llava_next"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="no 'vision_config' in a config of type 'llava_next'"):
        read_hf(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"vision_config": 3}))
    with pytest.raises(ConfigError, match="a value of another kind"):
        read_hf(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[", '{"weight_map": {"a": "../x.safetensors"}}'])
def test_an_index_that_lists_no_shards_of_its_folder(tmp_path: Path, text: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "model.safetensors.index.json").write_text(text)
    with pytest.raises(WeightsError, match="index"):
        read_folder(tmp_path / "in")


def test_a_tokenizer_that_is_not_the_language_models() -> None:
    arch = CausalLMConfig.tiny().arch | {"vocab_size": 100}
    model = MultimodalModel(ModelConfig(backbone=CausalLMConfig(arch=arch), template="chatml")).eval()
    with pytest.raises(ConfigError, match="embedding has 100 rows"):
        Model(model, byte_tokenizer()).respond("hello", max_tokens=2)
    with pytest.raises(ConfigError, match=r"a tokenizer of 263 tokens; expected at most 100"):
        vocabulary(byte_tokenizer(), 100)


def test_pictures_are_compared_with_texts_on_the_command_line(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = TINY_FORMS.find("clip")().model
    model = MultimodalModel(config).eval()
    save_model(model, byte_tokenizer(), tmp_path / "clip", learnt=set())
    here, seen = str(tmp_path / "clip"), picture(tmp_path)
    ours = Model(model, byte_tokenizer())
    rows = json.loads(run("match", seen, "a cat", "a red bird", "--model", here, "--json"))
    scores = dict(zip(("a cat", "a red bird"), ours.similarity([seen], ["a cat", "a red bird"])[0].tolist(), strict=True))
    assert {row["text"]: row["score"] for row in rows} == pytest.approx(scores, abs=1e-5)
    assert rows[0]["score"] >= rows[1]["score"]
    assert sum(row["probability"] for row in rows) == pytest.approx(1)
    named = json.loads(run("match", seen, "cat", "dog", "--prompt", "a photo of a {}.", "--model", here, "--json"))
    probable = dict(zip(("cat", "dog"), ours.classify([seen], ["cat", "dog"])[0].tolist(), strict=True))
    assert {row["text"]: row["probability"] for row in named} == pytest.approx(probable, abs=1e-5)
    with pytest.raises(ConfigError, match="sensorium match"):
        run("ask", seen, "What?", "--model", here)
    with pytest.raises(ConfigError, match="leave --together out"):
        run("match", seen, "cat", "--together", "--model", here)


def test_experts_tell_who_is_asked_on_the_command_line(tmp_path: Path, data_home: Path) -> None:
    del data_home
    model = MultimodalModel(ModelConfig(backbone=CausalLMConfig.tiny(), template="chatml")).eval()
    save_model(model, byte_tokenizer(), tmp_path / "blind", learnt=set())
    save_model(*build_pretrained(tiny_model()), tmp_path / "seeing", learnt=set())
    here, seen = str(tmp_path / "blind"), picture(tmp_path)
    with pytest.raises(ConfigError, match="--expert captioner"):
        run("ask", seen, "What?", "--model", here)
    with pytest.raises(ConfigError, match="did you mean 'captioner'"):
        run("ask", seen, "What?", "--model", here, "--expert", "captoner")
    expert = ("--expert", f"captioner:model={tmp_path / 'seeing'},max_tokens=4")
    told = json.loads(run("ask", seen, "What?", "--model", here, *expert, "--max-tokens", "3", "--json"))
    assert told["model"] == here
    assert told["tokens"] <= 3
    done = CliRunner().invoke(app, ["chat", seen, "--model", here, *expert, "--max-tokens", "3"], input="What?\n/quit\n")
    assert (done.exit_code, "error" in done.output) == (0, False)

"""Small answers of the command line: recorded oracles, prompts, near names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sensorium.backbones.causal_lm import transformers_config
from sensorium.cli.main import app
from sensorium.cli.prompt import prompt_lines
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.recipes import RECIPES

PAGE = Path(__file__).parents[2] / "docs" / "systems.md"


def said(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    if result.exception:
        raise result.exception
    return result.output


def test_recorded_oracles_are_named() -> None:
    oracles = {row["name"]: row["oracle"] for row in json.loads(said("recipe", "list", "--json"))}
    assert oracles["qwen-vl"] == "recorded: Qwen-VL-Chat"
    assert oracles["openflamingo-3b"] == "recorded: open_flamingo"
    assert oracles["llava-1.5"] == "LlavaForConditionalGeneration"
    # The page is what `recipe table` writes: `test_commands.py` compares them.
    assert "| recorded: open_flamingo |" in PAGE.read_text(encoding="utf-8")


def test_what_stands_for_an_oracle_is_a_test_that_is_there() -> None:
    """A recipe without a class of transformers names what else it is compared with, and where."""
    root = Path(__file__).parents[1]
    for name in RECIPES:
        published = RECIPES.find(name)().published
        if published is None:
            continue
        told = [published.oracle, published.recorded, published.second]
        assert len([one for one in told if one]) == 1, name
        if published.second:
            file = published.second.rpartition("(")[2].removesuffix(")")
            assert [*root.glob(f"parity/{file}"), *root.glob(f"unit/{file}")], name


@pytest.mark.parametrize("name", ["chameleon", "janus", "janus-pro"])
def test_what_is_unknown_of_closed_models_is_told(name: str) -> None:
    page = PAGE.read_text(encoding="utf-8").split(f"\n## {name}\n")[1].split("\n## ")[0]
    shown = " ".join(said("recipe", "show", name, "--yaml").split())
    for word in ("sizes", "what reads", "what draws", "data", "training", "prompts"):
        assert f"- unknown: of both, {word}" in page or f"- unknown: of GPT-4o and Gemini, {word}" in page
        assert f"of both, {word}:" in shown or f"of GPT-4o and Gemini, {word}:" in shown


def test_show_writes_a_prompt() -> None:
    shown = said("recipe", "show", "llava-1.5")
    assert "[image]\\nWhat is this? ASSISTANT: A cat.{eos}" in shown
    assert "What is this?" not in said("recipe", "show", "llava-1.5", "--yaml")
    # One lane takes all three.
    assert "<Img>[image]</Img> <Img>[video]</Img> <Img>[audio]</Img> What is this?" in said("recipe", "show", "next-gpt")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_prompt_or_says_why_not(name: str) -> None:
    lines = prompt_lines(RECIPES.find(name)())
    assert lines
    assert all(line.startswith("prompt") for line in lines)


def test_equal_recipes_have_no_difference() -> None:
    assert said("recipe", "diff", "nano", "nano") == "no difference\n"
    assert json.loads(said("recipe", "diff", "nano", "nano", "--json")) == []


def test_a_misspelt_model_type_gets_a_short_answer() -> None:
    with pytest.raises(ConfigError, match="did you mean 'llama'") as error:
        transformers_config({"model_type": "lama"})
    assert len(str(error.value)) < 150


@pytest.mark.parametrize("words", [["ask", "cat.png", "what", "--model"], ["export", "--to", "hf"]])
def test_a_misspelt_local_path_never_goes_to_the_hub(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours" / "llava").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def fetched(*_: object) -> None:
        raise AssertionError("asked the hub")

    monkeypatch.setattr("sensorium.interop.locate.locate", fetched)
    places = ["ours/lava"] if words[0] == "ask" else ["ours/lava", "out"]
    with pytest.raises(WeightsError, match="did you mean 'ours/llava'"):
        said(*words, *places)

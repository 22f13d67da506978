"""`sensorium recipe ...`, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.errors import ConfigError
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.recipes.sizes import part_sizes
from sensorium.training.config import Recipe

PAGE = Path(__file__).parents[2] / "docs" / "systems.md"


def sensorium(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_list_says_what_each_recipe_is() -> None:
    rows = {row["name"]: row for row in json.loads(sensorium("recipe", "list", "--json"))}
    assert set(rows) == set(RECIPES)
    assert rows["llava-1.5"] == {
        "name": "llava-1.5", "io": "I+T→T", "phrase": "CLIP-L/336, two-layer MLP, Vicuna-7B",
        "parts": "clip → mlp → llama", "stages": ["align", "instruct"],
        "trained": ["projector", "projector + LLM"],
        "oracle": "LlavaForConditionalGeneration", "status": "complete",
    }  # fmt: skip
    assert rows["nano"]["io"] == "I+T→T"
    assert rows["nano"]["status"] == "ours"
    assert rows["minigpt4"]["trained"] == ["projector.out", "projector.out"]
    assert "gated_cross_attention" in rows["idefics-9b"]["parts"]
    text = sensorium("recipe", "list")
    assert text.splitlines()[0].split()[:4] == ["name", "in→out", "parts", "stages"]
    assert all(name in text for name in RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_graph_names_every_part_and_its_size(name: str) -> None:
    text = sensorium("recipe", "show", name)
    recipe: Recipe = RECIPES.find(name)()
    # The drawing is a comment: what is printed is still the recipe.
    assert Recipe.from_dict(yaml.safe_load(text)) == recipe
    lines = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    sizes = part_sizes(recipe.model)
    assert lines[0] == f"{name}: {sum(sizes.values()):,} parameters"
    for part, size in sizes.items():
        (line,) = [line for line in lines if line.startswith(f"{part} ")]
        assert f" {size:,} " in line
        learns = [s.name for s in recipe.stages if any(x.part == part for x in s.learns)]
        assert all(stage in line for stage in learns)
        assert line.endswith("frozen") == (not learns)


def test_the_yaml_alone_and_the_drawing_in_json() -> None:
    assert sensorium("recipe", "show", "tiny", "--yaml") == RECIPES.find("tiny")().to_yaml()
    values = json.loads(sensorium("recipe", "show", "tiny", "--json"))
    assert Recipe.from_dict(values) == RECIPES.find("tiny")()
    assert "projectors.image" in json.loads(sensorium("recipe", "show", "tiny", "--json", "--graph"))["graph"]


def test_graph_shows_shapes() -> None:
    text = sensorium("recipe", "show", "llava-1.5")
    assert "|  576 x 1,024" in text
    assert "|  576 x 4,096" in text
    assert "frozen" in text
    text = sensorium("recipe", "show", "idefics-9b")
    assert "|  64 x 1,280" in text
    assert "8 gated cross-attentions, every 4 layers" in text


def test_a_variant_differs_by_little() -> None:
    found = json.loads(sensorium("recipe", "diff", "llava-1.5", "llava-1.5-13b", "--json"))
    keys = {row["key"]: (row["llava-1.5"], row["llava-1.5-13b"]) for row in found}
    assert keys.pop("model.backbone.arch.hidden_size") == (4096, 5120)
    assert set(keys) == {
        "name", "description", "model.backbone.weights.0.id", "model.backbone.arch.intermediate_size",
        "model.backbone.arch.num_hidden_layers", "model.backbone.arch.num_attention_heads",
        "model.backbone.arch.num_key_value_heads",
    }  # fmt: skip


def test_diff_of_stages_by_name_and_of_absent_keys(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPES.find("tiny")().override(["stages.align.steps=9"]).to_yaml())
    assert sensorium("recipe", "diff", "tiny", str(tmp_path / "mine.yaml")) == "stages.align.steps: 6 | 9\n"
    assert sensorium("recipe", "diff", "tiny", "tiny") == "no difference\n"
    text = sensorium("recipe", "diff", "nano", "tiny")
    assert "stages.sharpen.steps: 1500 | -\n" in text


def test_the_page_of_systems_is_up_to_date(tmp_path: Path) -> None:
    sensorium("recipe", "table", "--out", str(tmp_path / "page.md"))
    again = "run: sensorium recipe table --out docs/systems.md"
    assert PAGE.read_text(encoding="utf-8") == (tmp_path / "page.md").read_text(encoding="utf-8"), again


def test_tiny_forms_are_named_behind_a_stroke() -> None:
    text = sensorium("recipe", "show", "shikra/tiny")
    assert Recipe.from_dict(yaml.safe_load(text)) == TINY_FORMS.find("shikra")()
    with pytest.raises(ConfigError, match="did you mean 'shikra'"):
        sensorium("recipe", "show", "shikr/tiny")

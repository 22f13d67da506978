"""`sensorium recipe new`, and a new part by the steps of `docs/adding.md`, as a user does it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import sensorium
from sensorium.cli.main import app
from sensorium.core.errors import ConfigError
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.recipes.new import commented, new_recipe, write_recipe
from sensorium.training.config import Recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_the_start_of_a_new_one(name: str) -> None:
    source = RECIPES.find(name)()
    recipe = new_recipe(source, "mine", {})
    text = commented(recipe)
    assert Recipe.from_dict(yaml.safe_load(text)) == recipe
    assert (recipe.model, recipe.stages) == (source.model, source.stages)
    assert "# kind: one of" in text
    assert "\npublished" not in text


def test_new_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    words = ["recipe", "new", "mine", "--from", "tiny", "--out", str(file)]
    result = CliRunner().invoke(app, [*words, "--projector", "linear", "--json"])
    assert json.loads(result.output) == {
        "file": str(file), "from": "tiny",
        "doubts": ["encoders.image (vit) has no weights, and no stage teaches it: it would stay random. "
                   "Name weights under model.lanes.image.encoder, or let it learn"],
    }, result.exception
    recipe = Recipe.load(file)
    assert (recipe.name, recipe.model.lane("image").projector.kind) == ("mine", "linear")
    before = file.read_bytes()
    again = CliRunner().invoke(app, words)
    assert "this file exists" in str(again.exception)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [(["mine", "--from", "tiny", "--projector", "perciever"], "did you mean 'perceiver'"),
     (["mine", "--from", "tiny", "--encoder", "clipp"], "did you mean 'clip'"),
     (["mine", "--from", "llava15"], "did you mean 'llava-1.5'"),
     (["nano", "--from", "tiny"], "'nano' is a recipe that ships"),
     (["a/b", "--from", "tiny"], "a recipe called 'a/b'"),
     (["mine", "--from", "instructblip", "--projector", "group_concat"], "feature: patch with projector group_concat"),
     (["mine", "--from", "llava-next", "--projector", "qformer"], "nearest for encoder clip: projector linear, mlp"),
     (["mine", "--from", "qwen2-vl", "--encoder", "clip"], "an encoder of kind qwen2_vit")],
)  # fmt: skip
def test_what_cannot_be_is_named(words: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["recipe", "new", *words, "--out", str(tmp_path / "x.yaml")])
    assert isinstance(result.exception, ConfigError)
    assert said in str(result.exception)
    assert not (tmp_path / "x.yaml").exists()


def test_on_a_terminal_it_asks_until_the_parts_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.yaml"
    words = ["recipe", "new", "mine", "--out", str(file)]
    nobody = CliRunner().invoke(app, words)
    assert "name one with --from" in str(nobody.exception)
    monkeypatch.setattr("sensorium.cli.recipes.somebody_there", lambda: True)
    # A wrong recipe; a right one; its encoder, a projector that is none, its fusion, its LLM; then a right projector and
    # another LLM.
    said = CliRunner().invoke(app, words, input="tinny\ntiny\n\nliner\n\n\n\nlinear\n\nnano\n")
    assert said.exit_code == 0, said.exception
    assert "did you mean 'tiny'" in said.output
    assert "did you mean 'linear'" in said.output
    recipe = Recipe.load(file)
    assert recipe.model.lane("image").projector.kind == "linear"
    assert recipe.model.lane("image").encoder.kind == "vit"
    assert recipe.model.backbone == RECIPES.find("nano")().model.backbone


def test_fusion_and_llm_may_be_others(tmp_path: Path) -> None:
    folder = tmp_path / "llm"
    folder.mkdir()
    arch = {"model_type": "t5", "d_model": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 512}
    (folder / "config.json").write_text(json.dumps(arch))

    def made(*words: str) -> Recipe:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
        done = CliRunner().invoke(app, ["recipe", "new", "mine", "--from", "tiny", *words, "--out", str(file)])
        if done.exception:
            raise done.exception
        return Recipe.load(file)

    assert made("--fusion", "gated_cross_attention").model.fusion.kind == "gated_cross_attention"
    of_folder = made("--llm", str(folder)).model
    assert (of_folder.backbone.kind, of_folder.template) == ("seq2seq_lm", "auto")
    assert [source.path for source in of_folder.backbone.weights if source.kind == "folder"] == [str(folder)]
    assert made("--llm", "opt", "--fusion", "visual_expert").model.backbone == RECIPES.find("blip2-opt")().model.backbone
    with pytest.raises(ConfigError, match="fusion gated_cross_attention with an encoder-decoder"):
        made("--llm", str(folder), "--fusion", "gated_cross_attention")
    with pytest.raises(ConfigError, match="did you mean 'qwen2'"):
        made("--llm", "qwen2q")
    (folder / "config.json").write_text(json.dumps({"model_type": "llava", "vision_config": {}}))
    with pytest.raises(ConfigError, match="a multimodal model"):
        made("--llm", str(folder))


# A new projector, one file and one line ----------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "adding.md"
PROJECTOR = '''
"""Tokens times a learned scale, then one linear map."""

from typing import Literal

import torch
from torch import Tensor, nn

from sensorium.core.batch import Features, Grid
from sensorium.core.parts import InputProjectorConfig


class ScaledConfig(InputProjectorConfig):
    kind: Literal["scaled"] = "scaled"

    @classmethod
    def tiny(cls) -> "ScaledConfig":
        return cls()

    def out_grid(self, grid: Grid) -> Grid:
        return grid

    def build(self, d_in: int, d_out: int) -> nn.Module:
        return Scaled(d_in, d_out)


class Scaled(nn.Module):
    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.scale_D = nn.Parameter(torch.ones(d_in))
        self.out = nn.Linear(d_in, d_out)

    def forward(self, features: Features) -> Features:
        return Features(self.out(features.values_ND * self.scale_D), features.grids)
'''


def test_a_projector_is_added_by_the_page(tmp_path: Path) -> None:
    """In a copy of the package: exactly the files that the page names, then a recipe trains with it."""
    page = PAGE.read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith("| an input projector ")]
    written, line_in = (re.search(r"`([a-z_/A-Z]+\.py)`", cell) for cell in row.split("|")[2:4])
    assert "**one new file plus one line in a name table**" in page
    assert written is not None
    assert line_in is not None
    package = tmp_path / "sensorium"
    # With the bytecode of what stays as it was; not with what another process is just writing.
    shutil.copytree(Path(sensorium.__file__).parent, package, ignore=shutil.ignore_patterns("*.pyc.*"))
    before = contents(package)
    new = package / written[1].replace("NAME", "scaled")
    new.write_text(PROJECTOR.lstrip())
    table = package / line_in[1]
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    place = max(i for i, line in enumerate(lines) if ".input_projectors." in line) + 1
    lines.insert(place, '        "scaled": "sensorium.input_projectors.scaled:ScaledConfig",\n')
    table.write_text("".join(lines), encoding="utf-8")
    after = contents(package)
    assert set(after) - set(before) == {new.relative_to(package)}
    assert [f for f in before if after[f] != before[f]] == [table.relative_to(package)]

    write_recipe(new_recipe(TINY_FORMS.find("llava-1.5")(), "base", {}), tmp_path / "base.yaml")
    done = run(tmp_path, "recipe new mine --from base.yaml --projector scaled", "train mine.yaml --out run --json").splitlines()
    assert "mine.yaml: written" in done[0]
    assert json.loads("".join(done[done.index("{") :]))["trained"] is True
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["model"]["lanes"]["image"]["projector"] == {"kind": "scaled"}


def contents(package: Path) -> dict[Path, bytes]:
    return {f.relative_to(package): f.read_bytes() for f in package.rglob("*.py")}


COMMANDS = """
import sys
from typer.testing import CliRunner
from sensorium.cli.main import app
for words in sys.argv[1:]:
    print(CliRunner().invoke(app, words.split(), catch_exceptions=False).stdout, end="")
"""
"""Commands one after another in one process, which reads torch once."""


def run(folder: Path, *commands: str) -> str:
    """The commands, with the copy in front of the path."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, *commands], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(folder)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout

"""`sensorium recipe new`: a recipe of one's own as a commented YAML file, made from another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sensorium.core.atomic import write_text
from sensorium.core.errors import ConfigError
from sensorium.core.tables import NameTable
from sensorium.encoders import ENCODERS
from sensorium.fusion import FUSIONS
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.media import RESOLUTIONS
from sensorium.model.check import check_model
from sensorium.recipes import RECIPES
from sensorium.training.config import Recipe
from sensorium.training.objectives import OBJECTIVES

PARTS: dict[str, NameTable] = {"encoder": ENCODERS, "projector": INPUT_PROJECTORS, "fusion": FUSIONS}
"""What may be exchanged by kind while the recipe is made."""
TABLES: dict[str, NameTable] = {**PARTS, "resolution": RESOLUTIONS, "objective": OBJECTIVES}
# A line that is this key alone, or this key and a value, gets the comment in front of it.
COMMENTS: dict[str, str] = {
    "model": "Parts. `weights` says where a part's trained weights come from: kind hub (id), folder (path).",
    "encoder": "Sees the picture.",
    "projector": "Turns features into tokens of the LLM; it begins untrained.",
    "resolution": "How a picture of any shape becomes inputs of the encoder.",
    "fusion": "How tokens enter the LLM.",
    "backbone": "The LLM. `arch` is its own config.json.",
    "adapter": "null: none; or kind lora (rank, alpha, dropout, targets), bias_norm (added, norms): the LLM learns through it alone.",
    "template": "How a conversation is written.",
    "start": "A trained model to go on from: a folder, a name, or a hub id.",
    "stages": "Trained one after the other. What no entry of `learns` names is frozen.",
    "objective": "What is learnt.",
    "data": "Your rows. kind file reads most formats; `path` is where they lie, `weight` how often they are picked.",
    "learns": "Which parts learn in this stage (encoders.image, projectors.image, backbone, adapter), how fast.",
    "batch_size": "Rows of one step; `accumulate` multiplies it without more memory.",
    "max_length": "Tokens of the longest row, picture included.",
}


def new_recipe(
    source: Recipe, name: str, parts: Mapping[str, str | None], llm: Mapping[str, Any] | None = None
) -> Recipe:
    """A copy under another name, some parts exchanged for others with their default values.

    Args:
        parts: `encoder`, `projector` and `fusion`: the kind to take instead, or None.
        llm: keys of `model` to take instead: another `backbone`, and how it wants to be talked to.

    Raises:
        ConfigError: the name is taken or no name, a kind is unknown, the parts do not fit together,
            or there is no one lane to exchange a part of.
    """
    if name in RECIPES:
        raise ConfigError(f"{name!r} is a recipe that ships", fix="choose another name")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(f"a recipe called {name!r}", expected="letters, digits, dots, dashes, underscores")
    values = source.to_dict() | {"name": name, "published": None}
    values["description"] = f"{source.description} (made from {source.name})".strip()
    model = values["model"]
    model |= llm or {}
    for part, kind in parts.items():
        if kind is None:
            continue
        node = PARTS[part].find(kind).from_dict({"kind": kind}, where=f"{part} {kind}").to_dict()
        if part == "fusion":
            model |= {"fusion": node, "image_markers": []}
            continue
        if len(model["lanes"]) != 1:
            raise ConfigError(f"{source.name} has {len(model['lanes'])} lanes", expected="one, to exchange a part of")
        (lane,) = model["lanes"].values()
        lane[part] = node
    if parts.get("fusion") and "ends" in model["fusion"]:
        # A visual expert has to know what the projector does.
        model["fusion"]["ends"] = all(lane["projector"].get("ends", False) for lane in model["lanes"].values())
    recipe = Recipe.from_dict(values, where=name)
    # What parts refuse of each other, they refuse here and not in training.
    check_model(recipe.model)
    return recipe


def recipes_llm(name: str) -> dict[str, Any] | None:
    """The keys of `model` that say which LLM a recipe has and how it is talked to: of the recipe of this name, or
    else of the first whose LLM is of this model type of transformers (llama, opt, qwen2, t5); None: there is none."""
    recipe = RECIPES.find(name)() if name in RECIPES else next(
        (found for found in (RECIPES.find(other)() for other in RECIPES) if _type(found) == name), None)  # fmt: skip
    if recipe is None:
        return None
    values = recipe.model.to_dict()
    return {key: values[key] for key in ("backbone", "template", "placeholder_token")}


def llm_families() -> list[str]:
    """The model types that `recipes_llm` knows."""
    return sorted({_type(RECIPES.find(name)()) for name in RECIPES})


def _type(recipe: Recipe) -> str:
    return str(getattr(recipe.model.backbone, "arch", {}).get("model_type"))


def doubts(recipe: Recipe) -> list[str]:
    """What can be trained and will hardly be meant: encoders that begin at random and never learn."""
    taught = {learn.part for stage in recipe.stages for learn in stage.learns}
    return [
        f"encoders.{kind} ({lane.encoder.kind}) has no weights, and no stage teaches it: it would stay random. "
        f"Name weights under model.lanes.{kind}.encoder, or let it learn"
        for kind, lane in recipe.model.lanes.items()
        if not lane.encoder.weights and not getattr(lane.encoder, "first", None)
        and recipe.start is None and recipe.stages and f"encoders.{kind}" not in taught
    ]  # fmt: skip


def write_recipe(recipe: Recipe, file: Path) -> None:
    """Write the commented file.

    Raises:
        ConfigError: there is such a file already.
    """
    if file.exists():
        raise ConfigError("this file exists", where=str(file), fix="choose another name, or remove it")
    text = commented(recipe)
    # Comments must not change what is read.
    if Recipe.from_dict(yaml.safe_load(text), where=str(file)) != recipe:
        raise ConfigError("the recipe does not read back as it was written", where=str(file))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)


def commented(recipe: Recipe) -> str:
    """The recipe as YAML with a comment in front of what a user changes; the first time only."""
    lines = [
        f"# {recipe.name}. Edit, then:",
        f"#   sensorium train {recipe.name}.yaml --plan-only   checks parts, data and memory",
        f"#   sensorium train {recipe.name}.yaml               trains all stages",
        "# Keys may be left out where the default will do; `sensorium recipe show` prints them all.",
    ]
    said: set[str] = set()
    for line in _plain(recipe).splitlines():
        found = re.match(r"^(\s*(?:- )?)(\w+):", line)
        key = found[2] if found else ""
        if found and key in COMMENTS and key not in said:
            said.add(key)
            indent = " " * len(found[1].replace("- ", ""))
            if len(indent) == 0:
                lines.append("")
            lines.append(f"{indent}# {COMMENTS[key]}")
            if key in TABLES:
                lines.append(f"{indent}# kind: one of {', '.join(TABLES[key])}")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _plain(recipe: Recipe) -> str:
    """YAML without the keys that only published systems have."""
    values: dict[str, Any] = recipe.to_dict()
    del values["published"]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)

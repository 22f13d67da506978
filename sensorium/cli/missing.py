"""What a recipe needs and this machine does not have, all of it at once, before anything is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sensorium.core.config import Config
from sensorium.core.errors import DataError
from sensorium.core.weights import FileSource as WeightFile
from sensorium.core.weights import FolderSource, HubSource, ShippedSource, WeightSource, WheelSource
from sensorium.data.config import FileSource
from sensorium.training.config import Recipe

WEIGHTS = (FolderSource, WeightFile, WheelSource, HubSource, ShippedSource)


def check_data(recipe: Recipe, name: str | None = None) -> None:
    """Do the files and folders that its stages read exist? Weights that are not there are named too,
    but alone they are no error: fetching them may work.

    Args:
        name: what the command line calls the recipe, where that is a file.

    Raises:
        DataError: naming every path that is not there.
    """
    data = [line for place, node in _nodes(recipe, "") if isinstance(node, FileSource) for line in _data(place, node)]
    if not data:
        return
    lines = [f"  data     {line}" for line in data] + [f"  weights  {line}" for line in absent_weights(recipe)]
    example = data[0].partition(":")[0]
    name = name or recipe.name
    raise DataError(
        f"recipe {recipe.name!r} cannot begin; not on this machine:\n" + "\n".join(lines) + "\n",
        fix=f"name your own, {example}=PATH behind the recipe's name or in a file that "
        f"`sensorium recipe new NAME --from {name}` writes; see docs/adding.md",
    )  # fmt: skip


def absent_weights(recipe: Recipe) -> list[str]:
    """A line for each part none of whose sources lies on this machine."""
    lines: list[str] = []
    for place, sources in _source_lists(recipe, ""):
        if place.endswith("tokenizer_from") and recipe.model.backbone.weights:
            continue  # Only where the LLM's weights bring none.
        if not any(map(_at_hand, sources)):
            lines.append(f"{place}: {', or '.join(map(_said, sources))}")
    return lines


def _data(place: str, source: FileSource) -> list[str]:
    """Its lines: what it reads, and the folder of its media."""
    named = {"path": source.path, "media_root": source.media_root}
    return [f"{place}.{key}: {path}" for key, path in named.items() if path and not Path(path).exists()]


def _nodes(node: object, place: str) -> Iterator[tuple[str, Config]]:
    """Every config node below, with the keys that lead to it."""
    if isinstance(node, Config):
        yield place, node
    for key, value in _children(node):
        yield from _nodes(value, f"{place}.{key}".lstrip("."))


def _source_lists(node: object, place: str) -> Iterator[tuple[str, tuple[WeightSource, ...]]]:
    """Every list of sources of weights, with the keys that lead to it."""
    if isinstance(node, tuple) and node and all(isinstance(item, WEIGHTS) for item in node):
        yield place, node
        return
    for key, value in _children(node):
        yield from _source_lists(value, f"{place}.{key}".lstrip("."))


def _children(node: Any) -> Iterator[tuple[str, object]]:
    if isinstance(node, Config):
        for name in type(node).model_fields:
            value = getattr(node, name)
            if name == "stages":
                # Overrides call a stage by its name.
                yield from ((f"stages.{stage.name}", stage) for stage in value)
            else:
                yield name, value
    elif isinstance(node, dict):
        yield from node.items()
    elif isinstance(node, tuple):
        yield from ((str(i), item) for i, item in enumerate(node))


def _at_hand(source: WeightSource) -> bool:
    from sensorium.interop.locate import at_hand

    return at_hand(source)


def _said(source: WeightSource) -> str:
    if isinstance(source, HubSource):
        return f"{source.id} from the hub"
    if isinstance(source, WheelSource):
        return f"{source.package} {source.version} from the package index"
    return f"{source.kind} {source.path}"

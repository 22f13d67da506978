"""`recipe list`, `recipe show`, `recipe diff`, `recipe new`, `recipe table`."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sensorium.recipes.summary import Summary
    from sensorium.training.config import Recipe

# A pipe has no width; rows stay whole there.
PIPE_COLUMNS = 250
TITLES = ("name", "in→out", "parts", "stages", "trained parts", "oracle", "status")
KEPT = "as it is"
WRAPPED = ("parts", "trained parts")


def list_command(as_json: bool) -> None:
    """Every recipe in a row."""
    from sensorium.cli.main import print_json
    from sensorium.recipes import RECIPES
    from sensorium.recipes.summary import summary

    rows = [summary(RECIPES.find(name)()) for name in RECIPES]
    if as_json:
        print_json([row.to_json() for row in rows])
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_COLUMNS
    columns: dict[str, list[str]] = {title: [] for title in TITLES}
    for row in rows:
        # A line for each stage, so that what it trains stands beside it even when it wraps.
        stages = list(zip(row.stages, row.trained, strict=True)) or [("none", "")]
        for i, (stage, trained) in enumerate(stages):
            own = (row.name, row.io, row.parts) if i == 0 else ("", "", "")
            behind = (short_oracle(row), row.status) if i == 0 else ("", "")
            for cells, cell in zip(columns.values(), (*own, stage, trained, *behind), strict=True):
                cells.append(cell)
    least = {title: _least(title, cells) for title, cells in columns.items()}
    free = width - sum(least.values()) - 2 * (len(least) - 1)
    if free < 0:
        # Words would have to be broken.
        print("\n".join(_block(row, width) for row in rows))
        return
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    # rich, left to itself, takes from columns that must not wrap when those that may are narrow already.
    for i, title in enumerate(WRAPPED):
        more = max(0, min(max(map(cell_len, columns[title])) - least[title], free // (len(WRAPPED) - i)))
        least[title] += more
        free -= more
    for title in TITLES:
        table.add_column(title, no_wrap=title not in WRAPPED, width=least[title])
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    Console(width=width).print(table)


def _least(title: str, cells: list[str]) -> int:
    """The fewest columns that break no word."""
    texts = [title, *cells]
    if title not in WRAPPED:
        return max(map(len, texts))
    return max(len(word) for text in texts for word in text.split())


def short_oracle(row: Summary) -> str:
    """The class of transformers that this recipe's graph is compared with, without its long ending."""
    return (row.oracle or "none").removesuffix("ForConditionalGeneration").removesuffix("ForVisionText2Text")


def _block(row: Summary, width: int) -> str:
    """A recipe in a few short lines, for terminals too narrow for the table."""
    stages = "; ".join(f"{stage}: {what}" for stage, what in zip(row.stages, row.trained, strict=True))
    facts = f"{row.io}, {row.parts}"
    rest = f"oracle {short_oracle(row)}, {row.status}"
    lines = [row.name]
    for text in (facts, f"trains {stages}" if stages else "no stages", rest):
        lines += textwrap.wrap(text, width - 1, initial_indent="  ", subsequent_indent="    ",
                               break_long_words=False, break_on_hyphens=False)  # fmt: skip
    return "\n".join(lines)


def show_command(name: str, overrides: list[str], drawn: bool, as_json: bool) -> None:
    """The recipe as YAML or JSON, and its drawing."""
    from sensorium.cli.main import print_json
    from sensorium.cli.training import find_recipe

    recipe = find_recipe(name, overrides)
    drawing = ""
    if drawn:
        from sensorium.cli.prompt import prompt_lines
        from sensorium.recipes.drawing import draw

        drawing = draw(recipe) + "\n" + "\n".join(prompt_lines(recipe)) + "\n"
    if as_json:
        print_json({**recipe.to_dict(), "graph": drawing} if drawn else recipe.to_dict())
        return
    print(recipe.to_yaml(), end="")
    if drawing:
        # As a comment, so that what is printed is still a recipe that `train` reads.
        print("\n" + "".join(f"# {line}".rstrip() + "\n" for line in drawing.splitlines()), end="")


def diff_command(first: str, second: str, as_json: bool) -> None:
    """The keys in which two recipes differ, with both values."""
    from sensorium.cli.main import print_json
    from sensorium.cli.training import find_recipe
    from sensorium.recipes.differences import ABSENT, differences

    found = differences(find_recipe(first, []), find_recipe(second, []))
    if as_json:
        print_json([
            {"key": d.key}
            | {who: value for who, value in ((first, d.first), (second, d.second)) if value is not ABSENT}
            for d in found
        ])  # fmt: skip
        return
    if not found:
        print("no difference")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for difference in found:
        line = f"{difference.key}: {difference.first!r} | {difference.second!r}"
        if width is not None and len(line) > width:
            line = f"{difference.key}:\n    {difference.first!r}\n  | {difference.second!r}"
        print(line)


def new_command(name: str, source: str | None, parts: dict[str, str | None], out: str | None, as_json: bool) -> None:
    """A recipe of one's own, from another; what is not said is asked for, where somebody can answer.

    Raises:
        ConfigError: no other recipe is named and nobody can be asked.
    """
    from sensorium.cli.main import print_json
    from sensorium.cli.training import find_recipe
    from sensorium.core.errors import ConfigError
    from sensorium.recipes.new import doubts, write_recipe

    file = Path(out or f"{name}.yaml")
    if source is not None:
        recipe = _made(find_recipe(source, []), name, parts)
    elif somebody_there() and not as_json:
        source, recipe = _asked(name, parts)
    else:
        raise ConfigError("from which recipe?", fix="name one with --from; `sensorium recipe list` shows them all")
    write_recipe(recipe, file)
    if as_json:
        print_json({"file": str(file), "from": source, "doubts": doubts(recipe)})
    else:
        for doubt in doubts(recipe):
            print(f"note: {doubt}", file=sys.stderr)
        print(f"{file}: written. Edit it, then: sensorium train {file} --plan-only")


def _made(source: Recipe, name: str, parts: dict[str, str | None]) -> Recipe:
    """The new recipe; `llm` of the parts is looked for among recipes, folders and on the hub."""
    from sensorium.recipes.new import new_recipe

    kinds = {part: kind for part, kind in parts.items() if part != "llm"}
    said = parts.get("llm")
    return new_recipe(source, name, kinds, _llm(said) if said else None)


def _llm(said: str) -> dict[str, Any]:
    """What a model's config says of the LLM.

    Raises:
        ConfigError: it is no family, recipe or folder, and no hub id either.
    """
    from sensorium.core.errors import ConfigError
    from sensorium.core.naming import did_you_mean
    from sensorium.interop.llm import folder_llm, hub_llm
    from sensorium.recipes import RECIPES
    from sensorium.recipes.new import llm_families, recipes_llm

    known = recipes_llm(said)
    if known is not None:
        return known
    if not Path(said).is_dir() and said.count("/") != 1:
        names = [*llm_families(), *RECIPES]
        raise ConfigError(f"no LLM {said!r}", expected="a family, a recipe that has it, a folder, or a hub id",
                          fix=did_you_mean(said, names))  # fmt: skip
    backbone = folder_llm(Path(said)) if Path(said).is_dir() else hub_llm(said)
    return {"backbone": backbone.to_dict(), "template": "auto", "placeholder_token": None}


def somebody_there() -> bool:
    """Whether questions reach a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _asked(name: str, parts: dict[str, str | None]) -> tuple[str, Recipe]:
    """The recipe to begin with and the parts, asked for until they fit together."""
    import typer

    from sensorium.cli.training import find_recipe
    from sensorium.core.errors import ConfigError, WeightsError
    from sensorium.recipes.new import PARTS, new_recipe

    while True:
        try:
            source: str = typer.prompt("Begin with which recipe (`sensorium recipe list`)", default="nano")
            begun = find_recipe(source, [])
            new_recipe(begun, name, {})
            break
        except ConfigError as error:
            print(error)
    while True:
        chosen = dict(parts)
        for part in [p for p in PARTS if parts.get(p) is None]:
            if part != "fusion" and len(begun.model.lanes) != 1:
                continue
            node = begun.model if part == "fusion" else next(iter(begun.model.lanes.values()))
            now = getattr(node, part).kind
            said: str = typer.prompt(f"{part.capitalize()}: one of {', '.join(PARTS[part])}", default=now)
            chosen[part] = None if said == now else said
        if parts.get("llm") is None:
            said = typer.prompt("LLM: a family, a recipe that has it, a folder, or a hub id", default=KEPT)
            chosen["llm"] = None if said == KEPT else said
        try:
            return source, _made(begun, name, chosen)
        except (ConfigError, WeightsError) as error:
            print(error)
            if all(parts.get(p) is not None for p in (*PARTS, "llm")):
                raise


def table_command(out: str | None) -> None:
    """docs/systems.md, printed or written."""
    from sensorium.core.atomic import write_text
    from sensorium.recipes.systems_page import systems_page

    if out is None:
        print(systems_page(), end="")
    else:
        write_text(Path(out), systems_page())

"""`recipe list`, `recipe show`, `recipe diff`, `recipe table`."""

from __future__ import annotations

import sys
from pathlib import Path

# A pipe has no width; rows stay whole there.
PIPE_COLUMNS = 250


def list_command(as_json: bool) -> None:
    """Every recipe in a row."""
    from sensorium.cli.main import print_json
    from sensorium.recipes import RECIPES
    from sensorium.recipes.summary import summary

    rows = [summary(RECIPES.find(name)()) for name in RECIPES]
    if as_json:
        print_json([row.to_json() for row in rows])
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in ("name", "in→out", "parts", "stages", "trained parts", "oracle", "status"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(row.name, row.io, row.parts, "\n".join(row.stages), "\n".join(row.trained),
                      row.oracle or "none", row.status)  # fmt: skip
    Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)


def show_command(name: str, overrides: list[str], graph: bool, as_json: bool) -> None:
    """The recipe as YAML or JSON, and its drawing."""
    from sensorium.cli.main import print_json
    from sensorium.cli.training import find_recipe

    recipe = find_recipe(name, overrides)
    drawing = ""
    if graph:
        from sensorium.recipes.drawing import draw

        drawing = draw(recipe)
    if as_json:
        print_json({**recipe.to_dict(), "graph": drawing} if graph else recipe.to_dict())
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
    for difference in found:
        print(f"{difference.key}: {difference.first!r} | {difference.second!r}")


def table_command(out: str | None) -> None:
    """docs/systems.md, printed or written."""
    from sensorium.core.atomic import write_text
    from sensorium.recipes.systems_page import systems_page

    if out is None:
        print(systems_page(), end="")
    else:
        write_text(Path(out), systems_page())

"""`sensorium recipe ...`: its commands and their options; what they do is in `recipes.py`."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
RecipeName = Annotated[str, typer.Argument(help="A recipe's name, NAME/tiny, or a YAML file.")]
recipe_app = typer.Typer(no_args_is_help=True, help="List, print and compare recipes.",
                         rich_markup_mode=None)  # fmt: skip


@recipe_app.command("list")
def recipe_list(as_json: Json = False) -> None:
    """Every recipe: parts, stages, what learns, whether it is complete."""
    from sensorium.cli.recipes import list_command

    list_command(as_json)


@recipe_app.command("show")
def recipe_show(
    recipe: RecipeName,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value ...")] = None,
    yaml_only: Annotated[bool, typer.Option("--yaml", help="The YAML alone.")] = False,
    graph: Annotated[bool, typer.Option("--graph", help="--json: the drawing, too.")] = False,
    as_json: Json = False,
) -> None:
    """Print a recipe as YAML that `train` accepts, and as comments its graph: parts, shapes, sizes."""
    from sensorium.cli.recipes import show_command

    show_command(recipe, overrides or [], drawn=graph if as_json else not yaml_only, as_json=as_json)


@recipe_app.command("diff")
def recipe_diff(
    first: RecipeName,
    second: Annotated[str, typer.Argument(help="Another.")],
    as_json: Json = False,
) -> None:
    """Print the keys in which two recipes differ, with both values."""
    from sensorium.cli.recipes import diff_command

    diff_command(first, second, as_json)


@recipe_app.command("new")
def recipe_new(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    source: Annotated[
        str | None, typer.Option("--from", help="A recipe's name, NAME/tiny, or a YAML file; asked for on a terminal.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Another encoder, by kind.")] = None,
    projector: Annotated[str | None, typer.Option(help="Another input projector, by kind.")] = None,
    fusion: Annotated[str | None, typer.Option(help="Another fusion, by kind.")] = None,
    llm: Annotated[
        str | None,
        typer.Option(help="Another LLM: a family (llama, opt, qwen2, ...) or a recipe that has it, a folder, or a hub id."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="File to write; default NAME.yaml here.")] = None,
    as_json: Json = False,
) -> None:
    """Write a commented YAML to edit, made from another recipe. Without --from, a terminal is asked for it and for
    the parts."""
    from sensorium.cli.recipes import new_command

    parts = {"encoder": encoder, "projector": projector, "fusion": fusion, "llm": llm}
    new_command(name, source, parts, out, as_json)


@recipe_app.command("table")
def recipe_table(
    out: Annotated[str | None, typer.Option(help="A file to write, such as docs/systems.md.")] = None,
) -> None:
    """The published systems and their sizes as a Markdown page."""
    from sensorium.cli.recipes import table_command

    table_command(out)

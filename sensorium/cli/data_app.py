"""`sensorium data ...`: its commands and their options; what they do is in `data.py`."""

from __future__ import annotations

from typing import Annotated

import typer

from sensorium.cli.recipe_app import Json

ModelName = Annotated[
    str, typer.Option("--model", "-m", help="nano, nano-points, nano-draws, nano-finds, nano-chooses, nano-diffuses, a folder, or a hub id.")
]
data_app = typer.Typer(no_args_is_help=True, help="Check, build and look at data.", rich_markup_mode=None)


@data_app.command("check")
def data_check(
    path: Annotated[str, typer.Argument(help="A file or folder in any known format.")],
    format: Annotated[str, typer.Option(help="Format name; auto finds out.")] = "auto",
    media_root: Annotated[str | None, typer.Option(help="Where relative media start.")] = None,
    model: ModelName = "nano",
    max_length: Annotated[int, typer.Option(help="Tokens a row may have in training.")] = 512,
    as_json: Json = False,
) -> None:
    """Read every row, decode every image, report every problem."""
    from sensorium.cli.data import check_command

    check_command(path, format, media_root, model, max_length, as_json)


@data_app.command("build")
def data_build(
    name: Annotated[str, typer.Argument(help="picture-book, drawing-book or scenes.")],
    out: Annotated[str | None, typer.Option(help="Folder; default: the data folder.")] = None,
    packages: Annotated[str | None, typer.Option(help="Folder with packages already fetched.")] = None,
    count: Annotated[int, typer.Option(help="scenes: how many.")] = 1000,
    seed: Annotated[int, typer.Option(help="scenes: which.")] = 11,
    as_json: Json = False,
) -> None:
    """Build a data set from its sources."""
    from sensorium.cli.data import build_command

    build_command(name, out, packages, count, seed, as_json)


@data_app.command("show")
def data_show(
    path: Annotated[str, typer.Argument(help="A file or folder in any known format.")],
    row: Annotated[int, typer.Option(help="First row to show, from 1.")] = 1,
    rows: Annotated[int, typer.Option(help="How many.")] = 3,
    format: Annotated[str, typer.Option(help="Format name; auto finds out.")] = "auto",
    as_json: Json = False,
) -> None:
    """Print rows as the conversations they become."""
    from sensorium.cli.data import show_command

    show_command(path, format, row, rows, as_json)

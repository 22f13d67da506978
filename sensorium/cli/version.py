"""`sensorium --version`."""

from __future__ import annotations

from typing import Annotated

import typer

from sensorium import __version__


def _say(asked: bool) -> None:
    if asked:
        print(f"sensorium {__version__}")
        raise typer.Exit


def common(
    version: Annotated[bool, typer.Option("--version", callback=_say, is_eager=True, help="Say which version this is.")] = False,
) -> None:
    """What all commands share."""

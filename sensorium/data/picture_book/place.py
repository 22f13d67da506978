"""Where picture sets lie: the part that ships with the package, or the built ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from sensorium.core.errors import DataError

Part = Literal["shipped", "full", "best", "drawings"]
SHIPPED = Path(__file__).parents[2] / "assets" / "picture_book"


def data_folder() -> Path:
    """`$SENSORIUM_DATA`, else `$XDG_DATA_HOME/sensorium`, else `~/.local/share/sensorium`."""
    chosen = os.environ.get("SENSORIUM_DATA")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "sensorium"


def book_folder(part: Part) -> Path:
    """The folder of a part.

    Raises:
        DataError: a set is asked for that has not been built.
    """
    name = "drawing-book" if part == "drawings" else "picture-book"
    full = data_folder() / name
    if part == "shipped" or (part == "best" and not (full / "pictures.jsonl").exists()):
        return SHIPPED
    if not (full / "pictures.jsonl").exists():
        raise DataError(
            f"the whole {name} has not been built",
            where=str(full),
            fix=f"run `sensorium data build {name}`",
        )
    return full

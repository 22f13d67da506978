"""Where picture sets lie: the part that ships with the package, or the built ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from sensorium.core.errors import DataError

Part = Literal["shipped", "full", "best", "drawings"]
SHIPPED = Path(__file__).parents[2] / "assets" / "picture_book"
ROWS = "pictures.jsonl"
"""What a set's folder holds, plain as it is built or compressed as it ships."""


def data_folder() -> Path:
    """`$SENSORIUM_DATA`, else `$XDG_DATA_HOME/sensorium`, else `~/.local/share/sensorium`."""
    chosen = os.environ.get("SENSORIUM_DATA")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "sensorium"


def rows_file(plain: Path) -> Path | None:
    """The file, else its compressed form beside it; None where there is neither."""
    return next((f for f in (plain, plain.with_name(f"{plain.name}.gz")) if f.exists()), None)


def book_folder(part: Part) -> Path:
    """The folder of a part.

    Raises:
        DataError: a set is asked for that has not been built.
    """
    name = "drawing-book" if part == "drawings" else "picture-book"
    full = data_folder() / name
    built = rows_file(full / ROWS) is not None
    if part == "shipped" or (part == "best" and not built):
        return SHIPPED
    if not built:
        raise DataError(
            f"the whole {name} has not been built",
            where=str(full),
            fix=f"run `sensorium data build {name}`",
        )
    return full

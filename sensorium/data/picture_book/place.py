"""Where picture-book lies: the part that ships with the package, or the whole built set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from sensorium.core.errors import DataError

SHIPPED = Path(__file__).parents[2] / "assets" / "picture_book"


def data_folder() -> Path:
    """`$SENSORIUM_DATA`, else `$XDG_DATA_HOME/sensorium`, else `~/.local/share/sensorium`."""
    chosen = os.environ.get("SENSORIUM_DATA")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "sensorium"


def book_folder(part: Literal["shipped", "full", "best"]) -> Path:
    """The folder of a part.

    Raises:
        DataError: the whole set is asked for and has not been built.
    """
    full = data_folder() / "picture-book"
    if part == "shipped" or (part == "best" and not (full / "pictures.jsonl").exists()):
        return SHIPPED
    if not (full / "pictures.jsonl").exists():
        raise DataError(
            "the whole picture-book has not been built",
            where=str(full),
            fix="run `sensorium data build picture-book`",
        )
    return full

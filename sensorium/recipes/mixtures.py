"""Sets of data by name."""

from __future__ import annotations

from collections.abc import Mapping

from sensorium.data.config import FileSource


def mixed(
    shares: Mapping[str, float | None], layout: str, *, root: str = "data", suffix: str = ""
) -> tuple[FileSource, ...]:
    """One source for each set.

    Args:
        shares: name -> share of the rows that are seen; None: its number of rows.
        layout: the format of all files.
        suffix: behind each name, with its full stop.
    """
    return tuple(
        FileSource(path=f"{root}/{name}{suffix}", format=layout, weight=share)
        for name, share in shares.items()
    )

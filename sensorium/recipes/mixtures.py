"""Sets of data by name."""

from __future__ import annotations

from collections.abc import Mapping

from sensorium.data.config import FileSource


def mixed(
    shares: Mapping[str, float | None], layout: str, *, root: str = "data", suffix: str = "",
    losses: Mapping[str, float] | None = None,
) -> tuple[FileSource, ...]:  # fmt: skip
    """One source for each set.

    Args:
        shares: name -> share of the rows that are seen; None: its number of rows.
        layout: the format of all files.
        suffix: behind each name, with its full stop.
        losses: name -> what its tokens' losses are multiplied by, where that is not 1.
    """
    return tuple(
        FileSource(path=f"{root}/{name}{suffix}", format=layout, weight=share,
                   loss_weight=(losses or {}).get(name, 1.0))
        for name, share in shares.items()
    )  # fmt: skip

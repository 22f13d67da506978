"""Our own format: Samples as JSON lines, as a JSON array, or one alone, as `ask --save` writes it."""

from __future__ import annotations

from pathlib import Path

from sensorium.data.formats.rows import json_rows
from sensorium.data.source import Source


def open_samples(path: Path, root: Path | None = None) -> Source:
    """Samples of a file; media paths start from its folder."""
    return json_rows(path, lambda row, _: dict(row), root)

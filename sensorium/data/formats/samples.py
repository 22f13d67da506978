"""Our own format: a JSONL file of Samples."""

from __future__ import annotations

from pathlib import Path

from sensorium.data.source import JsonlSource, Source


def open_samples(path: Path, root: Path | None = None) -> Source:
    """Samples, one a line; media paths start from the file's folder."""
    return JsonlSource(path, root)

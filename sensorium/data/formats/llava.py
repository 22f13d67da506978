"""LLaVA JSON: a list of {id, image, conversations: [{from, value}]}.

Source: github.com/haotian-liu/LLaVA, docs/Finetune_Custom_Data.md.
"""

from __future__ import annotations

from pathlib import Path

from sensorium.data.formats.rows import json_rows, turn_row
from sensorium.data.source import Source


def open_llava(path: Path, root: Path | None = None) -> Source:
    """Rows with `<image>` in the text; `image` is a path or a list of paths."""
    return json_rows(path, turn_row, root)

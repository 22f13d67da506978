"""OpenAI messages and ShareGPT, as JSON lines or a JSON array.

Content is text (with `<image>` for each entry of `images`) or a list of typed parts.
"""

from __future__ import annotations

from pathlib import Path

from sensorium.data.formats.rows import json_rows, turn_row
from sensorium.data.source import Source


def open_messages(path: Path, root: Path | None = None) -> Source:
    """Rows with `messages` or `conversations`, and `images` beside them."""
    return json_rows(path, turn_row, root)

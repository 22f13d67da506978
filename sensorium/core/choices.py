"""A file of answers to choose from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from sensorium.core.errors import DataError


def read_choices(path: str | Path) -> tuple[str, ...]:
    """The answers of a file, each once: a JSON list of texts, or one a line.

    Raises:
        DataError: it cannot be read, or holds none.
    """
    file = Path(path)
    try:
        content = file.read_text(encoding="utf-8")
        found: Any = json.loads(content) if file.suffix == ".json" else [line.strip() for line in content.splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"no readable list of answers: {error}", where=str(file),
                        expected="one answer a line, or a JSON list in a .json file") from None  # fmt: skip
    texts = cast(list[Any], found) if isinstance(found, list) else []
    if not all(isinstance(text, str) for text in texts) or not any(texts):
        raise DataError("no list of answers", where=str(file), expected="one answer a line, or a JSON list of texts")
    return tuple(dict.fromkeys(text for text in texts if text.strip()))

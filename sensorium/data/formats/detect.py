"""Which format data on disk is in, judged by names and the first row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sensorium.core.errors import DataError
from sensorium.core.sample import PART_TYPES


def detect_format(path: Path) -> str:
    """The name of the format at `path`.

    Raises:
        DataError: it cannot be told.
    """
    if path.is_dir():
        if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            return "hf_dataset"
        return "webdataset" if any(path.glob("*.tar")) else "folder"
    suffix = path.suffix.lower()
    if suffix == ".tar":
        return "webdataset"
    if suffix in (".csv", ".tsv", ".parquet"):
        return "table"
    if suffix in (".jsonl", ".json"):
        return _detect_json(path)
    raise DataError(
        f"cannot tell the format of a {suffix or 'nameless'} file",
        expected=".jsonl, .json, .csv, .tsv, .parquet, .tar or a folder",
        where=str(path),
        fix="name the format with --format",
    )


def _detect_json(path: Path) -> str:
    row, is_array = _first_row(path)
    if not isinstance(row, dict):
        raise DataError("the first row is not an object", where=str(path))
    if "images" in row and "annotations" in row:
        return "coco"
    if "conversations" in row:
        return "llava"
    if "messages" in row:
        return "samples" if _is_sample(row) and not is_array else "messages"
    raise DataError(
        f"the first row has the keys {sorted(row)}",
        expected="messages, conversations, or COCO's images and annotations",
        where=str(path),
    )


def _first_row(path: Path) -> tuple[Any, bool]:
    """The first row, and whether the file is one JSON array."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        line = next((x for x in stream if x.strip()), "")
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            stream.seek(0)
            try:
                value = json.loads(stream.read())
            except json.JSONDecodeError as error:
                raise DataError(f"not JSON: {error}", where=str(path)) from None
    if isinstance(value, list):
        return (value[0] if value else None), True
    return value, False


def _is_sample(row: dict[str, Any]) -> bool:
    """Ours: no foreign keys, and every media part has a value under its own type."""
    if set(row) - {"id", "messages", "meta"}:
        return False
    messages = row["messages"] if isinstance(row["messages"], list) else []
    parts = [p for m in messages if isinstance(m, dict) and isinstance(m.get("content"), list)
             for p in m["content"] if isinstance(p, dict)]  # fmt: skip
    return all(p.get("type") in PART_TYPES and p["type"] in p for p in parts)

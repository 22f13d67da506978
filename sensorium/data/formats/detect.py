"""Which format data on disk is in, judged by names and the first row that tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sensorium.core.errors import DataError
from sensorium.core.sample import KEYS, PART_TYPES
from sensorium.data.source import read_json

SHARED = ("text", "image", "audio", "video")
"""Types of parts that foreign messages have, too."""


def detect_format(path: Path) -> str:
    """The name of the format at `path`.

    Raises:
        DataError: it cannot be told.
    """
    if path.is_dir():
        return _detect_folder(path)
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


def _detect_folder(path: Path) -> str:
    from sensorium.data.formats.folder import has_captioned_image

    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        return "hf_dataset"
    if any(path.glob("*.tar")):
        return "webdataset"
    # The hub's layout; Parquet beside pictures with texts is about these pictures.
    if any(path.rglob("*.parquet")) and not has_captioned_image(path):
        return "hf_dataset"
    return "folder"


def _detect_json(path: Path) -> str:
    row, others = _telling_row(path)
    if "images" in row and "annotations" in row:
        return "coco"
    if "annotations" in row and "data_subtype" in row:
        return "vqa"
    if "conversations" in row:
        return "llava"
    if "messages" in row:
        # Rows of an array may be Samples by their looks alone; of text and pictures `messages` makes the same.
        ours = _is_sample(row) if others is None else any(_is_ours_alone(other) for other in others)
        return "samples" if ours or _is_ours_alone(row) else "messages"
    raise DataError(
        f"the first row has the keys {sorted(row)}",
        expected="messages, conversations, or COCO's images and annotations, VQA v2's annotations",
        where=str(path),
    )


def _telling_row(path: Path) -> tuple[dict[str, Any], list[Any] | None]:
    """The first row by which a format is told, and all rows of the JSON array that it stands in; None: it stands in none.

    A broken row in front is passed over here: it is named when rows are read.

    Raises:
        DataError: there is no row that is an object.
    """
    first: tuple[dict[str, Any], list[Any] | None] | None = None
    for value in _candidates(path):
        array = value if isinstance(value, list) else None
        for row in [value] if array is None else array:
            if not isinstance(row, dict):
                continue
            if "messages" in row or "conversations" in row or {"images", "annotations"} <= set(row):
                return row, array
            first = first or (row, array)
    if first is not None:
        return first
    # Raises with the place where JSON breaks off, if it does.
    read_json(path.read_bytes(), str(path))
    raise DataError("no row is an object", where=str(path))


def _candidates(path: Path) -> Iterator[Any]:
    """Values that may be a row or an array of rows, in the order in which they are cheap to come by."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        head = next((line for line in stream if line.strip()), "")
    named_lines, like_array = path.suffix.lower() == ".jsonl", head.lstrip().startswith("[")
    yield from _value(head, path)
    if named_lines and not like_array:
        yield from _lines(path)
    yield from _value(path.read_bytes(), path)
    # A broken array is broken as a whole, unless the file's name says that it is none.
    if named_lines == like_array:
        yield from _lines(path)


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        for line in stream:
            # Only an object tells anything; of an indented file most lines are none.
            if line.lstrip().startswith("{"):
                yield from _value(line, path)


def _value(content: str | bytes, path: Path) -> Iterator[Any]:
    """One JSON value, or nothing where it is not JSON."""
    try:
        yield read_json(content, str(path))
    except DataError:
        return


def _is_sample(row: dict[str, Any]) -> bool:
    """Ours: no foreign keys, and every media part has a value under its own type."""
    return not set(row) - set(KEYS) and all(p.get("type") in PART_TYPES and p["type"] in p for p in _parts(row))


def _is_ours_alone(row: Any) -> bool:
    """Whether something in a row is known to no foreign format: boxes, say, or a medium's prompt."""
    if not isinstance(row, dict) or "messages" not in row:
        return False
    return "answers" in row or any(p.get("type") in PART_TYPES and p["type"] in p and (p["type"] not in SHARED or "prompt" in p)
                                   for p in _parts(row))  # fmt: skip


def _parts(row: dict[str, Any]) -> list[dict[str, Any]]:
    messages = row["messages"] if isinstance(row["messages"], list) else []
    return [p for m in messages if isinstance(m, dict) and isinstance(m.get("content"), list)
            for p in m["content"] if isinstance(p, dict)]  # fmt: skip

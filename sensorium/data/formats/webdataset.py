"""WebDataset: tar shards in which files of one sample share a name before the first dot.

Members are indexed once and then read by offset, so that samples have random access.
Source of the layout: github.com/webdataset/webdataset.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from sensorium.core.errors import DataError
from sensorium.data.formats.rows import IMAGE_COLUMNS, Row, RowSource, column_row
from sensorium.data.source import Source

Place = tuple[Path, int, int]
"""(shard, offset, size) of a member's bytes."""


def open_webdataset(path: Path, root: Path | None = None) -> Source:
    """One shard, or a folder of them.

    Raises:
        DataError: there are no shards, or one is compressed or damaged.
    """
    shards = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    if not shards:
        raise DataError("no .tar shards in the folder", where=str(path))
    samples: dict[str, dict[str, Place]] = {}
    for shard in shards:
        _index(shard, samples)
    keys = list(samples)

    def row(index: int) -> Row:
        return {"id": keys[index].rpartition("::")[2], **samples[keys[index]]}

    def convert(row: Row, where: str) -> dict[str, Any]:
        values: dict[str, Any] = {"id": row["id"]}
        for extension, place in row.items():
            if extension == "id":
                continue
            content = _read(place)
            if extension == "json":
                values = _json(content, where) | values
            elif extension in IMAGE_COLUMNS:
                values["image"] = content
            elif extension in ("txt", "caption", "text"):
                values["text"] = content.decode("utf-8", errors="replace").strip()
        return column_row(values, where)

    return RowSource(path.name, len(keys), row, convert,
                     where=lambda i: f"{keys[i].replace('::', ', sample ')}", root=root)  # fmt: skip


def _index(shard: Path, samples: dict[str, dict[str, Place]]) -> None:
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                key = f"{shard}::{folder + '/' if folder else ''}{stem}"
                place = (shard, member.offset_data, member.size)
                samples.setdefault(key, {})[extension.lower()] = place
    except tarfile.TarError as error:
        raise DataError(
            f"not readable as an uncompressed tar: {error}", where=str(shard)
        ) from None


def _read(place: Place) -> bytes:
    shard, offset, size = place
    with shard.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)


def _json(content: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"not JSON: {error}", where=where) from None
    return value if isinstance(value, dict) else {"conversations": value}

"""WebDataset: tar shards in which files of one sample share a name before the first dot.

Members are indexed once and then read by offset, so that samples have random access.
Source of the layout: github.com/webdataset/webdataset.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

from sensorium.core.errors import DataError
from sensorium.data.formats.rows import (
    AUDIO_COLUMNS,
    IMAGE_COLUMNS,
    VIDEO_COLUMNS,
    Row,
    RowSource,
    column_row,
)
from sensorium.data.source import Source, read_json

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
    repeated: dict[str, str] = {}
    for shard in shards:
        _index(shard, samples, repeated)
    keys = list(samples)

    def row(index: int) -> Row:
        key = keys[index]
        if key in repeated:
            raise DataError(
                f"two files are called {repeated[key]!r}", expected="one of each name in a shard",
                where=where(index), fix="give every sample a name of its own",
            )  # fmt: skip
        return {"id": key.rpartition("::")[2], **samples[key]}

    def where(index: int) -> str:
        return keys[index].replace("::", ", sample ")

    def convert(row: Row, where: str) -> dict[str, Any]:
        values: dict[str, Any] = {"id": row["id"]}
        for extension, place in row.items():
            if extension == "id":
                continue
            content = _read(place)
            if extension == "json":
                values = _members(content, where) | values
            elif extension in IMAGE_COLUMNS:
                values["image"] = content
            elif extension in VIDEO_COLUMNS:
                values["video"] = content
            elif extension in AUDIO_COLUMNS:
                values["audio"] = content
            elif extension in ("txt", "caption", "text"):
                values["text"] = content.decode("utf-8", errors="replace").strip()
        return column_row(values, where)

    return RowSource(path.name, len(keys), row, convert, where=where, root=root)


def _index(shard: Path, samples: dict[str, dict[str, Place]], repeated: dict[str, str]) -> None:
    """Where every member lies; of names that occur twice, which.

    Raises:
        DataError: the shard is not a plain tar.
    """
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                key = f"{shard}::{folder + '/' if folder else ''}{stem}"
                members = samples.setdefault(key, {})
                if extension.lower() in members:
                    repeated[key] = name
                members[extension.lower()] = (shard, member.offset_data, member.size)
    except tarfile.TarError as error:
        raise DataError(
            f"not readable as an uncompressed tar: {error}", where=str(shard)
        ) from None


def _read(place: Place) -> bytes:
    shard, offset, size = place
    with shard.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)


def _members(content: bytes, where: str) -> dict[str, Any]:
    value = read_json(content, where)
    return value if isinstance(value, dict) else {"conversations": value}

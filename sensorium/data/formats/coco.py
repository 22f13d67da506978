"""COCO captions: {images: [{id, file_name}], annotations: [{image_id, caption}]}."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from sensorium.core.errors import DataError
from sensorium.data.formats.rows import Row, RowSource
from sensorium.data.source import Source, read_json


def open_coco(path: Path, root: Path | None = None) -> Source:
    """One Sample for each caption, and an error for each image entry without id or file,
    behind them. The format lets images go without a caption; they are counted in `notes`.

    Raises:
        DataError: the file is not COCO JSON.
    """
    values = read_json(path.read_bytes(), str(path))
    images, captions = (_list(values, key, path) for key in ("images", "annotations"))
    files: dict[Hashable, Any] = {}
    bad: list[int] = []
    for number, image in enumerate(images):
        if _is_named(image):
            files[image["id"]] = image["file_name"]
        else:
            bad.append(number)

    def row(index: int) -> Row:
        if index < len(captions):
            return captions[index]
        raise DataError(
            "image entry without a usable 'id' and 'file_name'",
            expected='{"id": 7, "file_name": "7.jpg"}', where=where(index),
        )  # fmt: skip

    def where(index: int) -> str:
        if index < len(captions):
            return f"{path}, annotation {index + 1}"
        return f"{path}, image {bad[index - len(captions)] + 1}"

    def convert(row: Row, where: str) -> dict[str, Any]:
        number = row.get("image_id")
        if not isinstance(number, Hashable) or number not in files:
            raise DataError(f"no image with id {number!r}", where=where)
        if not isinstance(row.get("caption"), str):
            raise DataError("annotation without a caption", where=where)
        image = {"type": "image", "image": files[number]}
        return {"id": str(row.get("id", "")), "messages": [
            {"role": "user", "content": [image]},
            {"role": "assistant", "content": row["caption"].strip()}]}  # fmt: skip

    source = RowSource(path.name, len(captions) + len(bad), row, convert,
                       where=where, root=root or path.parent)  # fmt: skip
    unused = len(files.keys() - _captioned(captions))
    if unused:
        source.notes.append(f"{unused} of {len(images)} images have no caption and are left out")
    return source


def _list(values: Any, key: str, path: Path) -> list[Any]:
    found = values.get(key) if isinstance(values, Mapping) else None
    if not isinstance(found, list):
        raise DataError(f"not COCO captions: no list of {key!r}", where=str(path),
                        expected="an object with 'images' and 'annotations'")  # fmt: skip
    return found


def _is_named(image: Any) -> bool:
    return (
        isinstance(image, Mapping)
        and isinstance(image.get("file_name"), str)
        and "id" in image
        and isinstance(image["id"], Hashable)
    )


def _captioned(captions: list[Any]) -> set[Hashable]:
    """Ids that an annotation names, whether or not it is usable."""
    ids = (c.get("image_id") for c in captions if isinstance(c, Mapping))
    return {number for number in ids if isinstance(number, Hashable)}

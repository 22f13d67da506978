"""COCO captions: {images: [{id, file_name}], annotations: [{image_id, caption}]}."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sensorium.core.errors import DataError
from sensorium.data.formats.rows import Row, RowSource
from sensorium.data.source import Source


def open_coco(path: Path, root: Path | None = None) -> Source:
    """One Sample for each caption.

    Raises:
        DataError: the file is not COCO JSON.
    """
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        files = {image["id"]: image["file_name"] for image in values["images"]}
        captions: list[Any] = values["annotations"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"not COCO captions: {error!r}", where=str(path)) from None

    def convert(row: Row, where: str) -> dict[str, Any]:
        if row.get("image_id") not in files:
            raise DataError(f"no image with id {row.get('image_id')!r}", where=where)
        if not isinstance(row.get("caption"), str):
            raise DataError("annotation without a caption", where=where)
        image = {"type": "image", "image": files[row["image_id"]]}
        return {"id": str(row.get("id", "")), "messages": [
            {"role": "user", "content": [image]},
            {"role": "assistant", "content": row["caption"].strip()}]}  # fmt: skip

    return RowSource(path.name, len(captions), captions.__getitem__, convert,
                     where=lambda i: f"{path}, annotation {i + 1}", root=root or path.parent)  # fmt: skip

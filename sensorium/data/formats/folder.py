"""A folder of images with a `.txt` of the same name beside each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sensorium.core.errors import DataError
from sensorium.data.formats.rows import Row, RowSource
from sensorium.data.source import Source

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")


def open_folder(path: Path, root: Path | None = None) -> Source:
    """One Sample for each image, in sorted order; a missing text is that row's error.

    Raises:
        DataError: there is no image in the folder.
    """
    images = sorted(
        f for f in path.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file()
    )
    if not images:
        raise DataError("no images in the folder", expected=", ".join(IMAGE_SUFFIXES), where=str(path))

    def row(index: int) -> Row:
        return {"file": images[index]}

    def convert(row: Row, where: str) -> dict[str, Any]:
        image: Path = row["file"]
        text = image.with_suffix(".txt")
        if not text.exists():
            raise DataError(f"no {text.name} beside {image.name}", where=where)
        try:
            caption = text.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            raise DataError(f"{text.name} is not UTF-8 text", where=where) from None
        if not caption:
            raise DataError(f"{text.name} is empty", where=where)
        name = str(image.relative_to(path))
        return {"id": name, "messages": [
            {"role": "user", "content": [{"type": "image", "image": name}]},
            {"role": "assistant", "content": caption}]}  # fmt: skip

    return RowSource(path.name, len(images), row, convert,
                     where=lambda i: str(images[i]), root=path)  # fmt: skip

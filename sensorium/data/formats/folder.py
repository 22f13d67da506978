"""A folder of images with a `.txt` of the same name beside each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sensorium.core.errors import DataError
from sensorium.data.formats.rows import Row, RowSource
from sensorium.data.source import Source

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
OTHER_IMAGE_SUFFIXES = (".avif", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".jfif", ".svg", ".psd",
                        ".ico", ".tga", ".exr", ".hdr", ".dng", ".cr2", ".nef", ".arw", ".raw")  # fmt: skip
"""Pictures all the same, which a person would miss among the rows."""
NOT_CAPTIONS = ("readme", "license", "licence", "copying", "notice", "requirements")


def open_folder(path: Path, root: Path | None = None) -> Source:
    """One Sample for each image, in sorted order; a missing text is that row's error, and so
    are texts without an image and pictures in other formats, which follow.

    Raises:
        DataError: there is no picture in the folder.
    """
    files = sorted(f for f in path.rglob("*") if f.is_file())
    images = [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES]
    others = [f for f in files if f.suffix.lower() in OTHER_IMAGE_SUFFIXES]
    if not images and not others:
        raise DataError("no images in the folder", expected=", ".join(IMAGE_SUFFIXES), where=str(path))
    pictured = {f.with_suffix("") for f in (*images, *others)}
    lone = [f for f in files if f.suffix.lower() == ".txt" and f.with_suffix("") not in pictured
            and f.stem.lower() not in NOT_CAPTIONS]  # fmt: skip
    # Behind the images, which so keep their places.
    rows = [*images, *others, *lone]

    def row(index: int) -> Row:
        return {"file": rows[index]}

    def convert(row: Row, where: str) -> dict[str, Any]:
        _check_usable(row["file"], where)
        name = str(row["file"].relative_to(path))
        return {"id": name, "messages": [
            {"role": "user", "content": [{"type": "image", "image": name}]},
            {"role": "assistant", "content": _caption(row["file"], where)}]}  # fmt: skip

    return RowSource(path.name, len(rows), row, convert,
                     where=lambda i: str(rows[i]), root=path)  # fmt: skip


def has_captioned_image(path: Path) -> bool:
    """Whether any image has its text beside it."""
    return any(
        file.suffix.lower() in IMAGE_SUFFIXES and file.with_suffix(".txt").exists()
        for file in path.rglob("*")
    )


def _check_usable(file: Path, where: str) -> None:
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return
    if file.suffix.lower() == ".txt":
        raise DataError(
            f"no image beside {file.name}",
            expected=f"one of the same name with {', '.join(IMAGE_SUFFIXES)}", where=where,
            fix="add the image, or move the text out of the folder",
        )  # fmt: skip
    raise DataError(
        f"{file.suffix} pictures are not read",
        expected=", ".join(IMAGE_SUFFIXES), where=where, fix="save it as PNG or JPEG",
    )  # fmt: skip


def _caption(image: Path, where: str) -> str:
    text = image.with_suffix(".txt")
    if not text.exists():
        raise DataError(f"no {text.name} beside {image.name}", where=where)
    try:
        caption = text.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise DataError(f"{text.name} is not UTF-8 text", where=where) from None
    if not caption:
        raise DataError(f"{text.name} is empty", where=where)
    return caption

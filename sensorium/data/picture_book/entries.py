"""Raw pictures of both packages -> named, categorised entries."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image as PILImage

from sensorium.core.errors import MediaError
from sensorium.data.picture_book.categories import (
    CLIPART_FOLDERS,
    CLIPART_QUOTA,
    STAMP_FOLDERS,
    broader_kind,
    folder_name,
    lookup,
)
from sensorium.data.picture_book.packages import read_members
from sensorium.data.picture_book.words import Naming, accepted_names, article, clean_title, describe
from sensorium.media.image import load_image
from sensorium.media.limits import ImageLimits

STAMP_ROOT = "usr/share/tuxpaint/stamps/"
CLIPART_ROOT = "usr/share/openclipart/png/"
WORDS_FILE = "usr/share/dict/american-english"
# A name that half the set shares teaches nothing more.
MAX_PER_NAME = 40
# Larger than anything worth shrinking to 256 pixels; one poster has 231 megapixels.
LIMITS = ImageLimits(max_pixels=40_000_000)


@dataclass(slots=True)
class Entry:
    """One picture and everything known about it."""

    id: str
    caption: str
    name: str
    accepted: list[str]
    category: str | None
    style: str
    source: str
    licence: str
    author: str = ""
    caption_zh: str = ""
    image: str = ""
    split: str = "train"
    group: int = -1
    content: bytes = field(default=b"", repr=False)

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        del values["content"]
        return values


def read_dictionary(deb: Path) -> frozenset[str]:
    """The English word list."""
    for name, content in read_members(deb, (WORDS_FILE,)):
        del name
        words = content.decode("utf-8").split()
        return frozenset(w for w in words if w.islower() and "'" not in w)
    return frozenset()


def stamp_entries(deb: Path, suffix: str = ".png") -> Iterator[Entry]:
    """Tux Paint stamps: each picture has a .txt with an English line and translations.

    Most are PNG; some 250 are SVG only (`suffix=".svg"`), whose content is left undrawn.
    """
    texts: dict[str, str] = {}
    pictures: dict[str, bytes] = {}
    for path, content in read_members(deb, (suffix, ".txt")):
        if not path.startswith(STAMP_ROOT):
            continue
        stem = path.removeprefix(STAMP_ROOT).rpartition(".")[0]
        if path.endswith(".txt"):
            texts[stem] = content.decode("utf-8", errors="replace")
        elif "_mirror" not in stem and "_flip" not in stem:
            pictures[stem] = content
    for stem in sorted(pictures):
        folder = stem.rpartition("/")[0]
        text = texts.get(stem, "")
        naming = describe(text.split("\n")[0]) if text else None
        if naming is None or folder.startswith("symbols/alphabets"):
            continue
        chinese = re.search(r"^zh_CN\.utf8=(.+)$", text, re.M)
        drawn = "cartoon" in folder or folder.startswith(("symbols", "town/houses"))
        yield _entry(
            f"stamp/{stem}",
            naming,
            folder,
            lookup(STAMP_FOLDERS, folder),
            content=pictures[stem],
            style="drawing" if drawn else "photo",
            source="tuxpaint-stamps-default 2022.06.04-1",
            licence="GPL-2",
            caption_zh=chinese.group(1).strip() if chinese else "",
        )


def clipart_entries(deb: Path, dictionary: frozenset[str]) -> Iterator[Entry]:
    """Open Clip Art: names come from titles and file names, cleaned."""
    kept: Counter[str] = Counter()
    files = {
        path.removeprefix(CLIPART_ROOT).removesuffix(".png"): content
        for path, content in read_members(deb, (".png",))
        if path.startswith(CLIPART_ROOT)
    }
    for stem in sorted(files):
        folder, _, file_name = stem.rpartition("/")
        quota = next(((p, n) for p, n in CLIPART_QUOTA if folder.startswith(p)), None)
        if quota:
            kept[quota[0]] += 1
            # Spread over the sorted list: every 40th star rather than the first thirty.
            if quota[1] == 0 or kept[quota[0]] % 5 or kept[quota[0]] > 5 * quota[1]:
                continue
        author = _author(files[stem])
        naming = _clipart_naming(file_name, folder, author, dictionary)
        if naming is None:
            continue
        yield _entry(
            f"clipart/{stem}",
            naming,
            folder,
            lookup(CLIPART_FOLDERS, folder),
            content=files[stem],
            style="drawing",
            source="openclipart-png 0.18",
            licence="public domain",
            author=author or "",
        )


def _clipart_naming(
    file_name: str, folder: str, author: str | None, dictionary: frozenset[str]
) -> Naming | None:
    common = folder_name(folder)
    if common:
        return Naming(f"{article(common)} {common}".strip(), common, common.split()[-1])
    title = clean_title(file_name, author, dictionary)
    if not title:
        return None
    words = title.split()[:4]
    return describe(f"{article(' '.join(words))} {' '.join(words)}")


def _author(content: bytes) -> str | None:
    try:
        with PILImage.open(io.BytesIO(content), formats=("PNG",)) as picture:
            author = picture.info.get("Author")
    except (OSError, ValueError, PILImage.DecompressionBombError):
        return None
    return str(author) if author else None


def _entry(
    identity: str, naming: Naming, folder: str, category: str | None, **known: Any
) -> Entry:
    return Entry(
        id=identity,
        caption=naming.caption,
        name=naming.name,
        accepted=accepted_names(naming, broader_kind(folder)),
        category=category,
        **known,
    )


def cap_names(entries: list[Entry]) -> list[Entry]:
    """At most `MAX_PER_NAME` pictures of one name, spread evenly over the list."""
    by_name: dict[str, list[Entry]] = {}
    for entry in entries:
        by_name.setdefault(entry.name, []).append(entry)
    kept: set[str] = set()
    for same in by_name.values():
        step = max(1.0, len(same) / MAX_PER_NAME)
        kept.update(same[int(i * step)].id for i in range(min(len(same), MAX_PER_NAME)))
    return [entry for entry in entries if entry.id in kept]


def shrink(entry: Entry, side_px: int, quality: int) -> tuple[bytes, PILImage.Image] | None:
    """The picture as WebP with its transparency, longest side at most `side_px`, and its
    RGB form on white; None where it cannot be decoded."""
    try:
        upright = load_image(entry.content, limits=LIMITS)
    except MediaError:
        return None
    with PILImage.open(io.BytesIO(entry.content), formats=("PNG", "WEBP", "JPEG")) as picture:
        transparent = picture.mode in ("RGBA", "LA") or "transparency" in picture.info
        small = _crop_margin(picture.convert("RGBA")) if transparent else upright.to_pil()
    if min(small.size) < 12:
        return None
    small.thumbnail((side_px, side_px), PILImage.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue(), load_image(small).to_pil()


def _crop_margin(picture: PILImage.Image) -> PILImage.Image:
    """Cut transparent margins: many clip-arts are a small drawing on an empty page."""
    box = picture.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()  # pyright: ignore[reportOperatorIssue]
    if box is None:
        return picture
    pad = max(2, max(box[2] - box[0], box[3] - box[1]) // 25)
    left, top = max(0, box[0] - pad), max(0, box[1] - pad)
    return picture.crop(
        (left, top, min(picture.width, box[2] + pad), min(picture.height, box[3] + pad))
    )

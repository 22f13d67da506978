"""Build drawing-book: pictures beside picture-book, by other hands.

Emoji in eight styles, cartoon flash cards and the Tux Paint stamps that are SVG only are for
training; a ninth emoji style is held out whole, as a test of drawings from a source that training never saw.
The folder has picture-book's layout. Pictures that look like one of picture-book's held-out
pictures are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.core.atomic import atomic_folder
from sensorium.core.errors import DataError, MediaError
from sensorium.data.picture_book.build import (
    PictureBookConfig,
    Progress,
    read_entries,
    write_images,
    write_samples,
)
from sensorium.data.picture_book.cards import CARDS, card_entries
from sensorium.data.picture_book.emoji import NAMES, STYLES, emoji_entries
from sensorium.data.picture_book.entries import Entry, stamp_entries
from sensorium.data.picture_book.groups import MAX_BITS_APART, difference_hash
from sensorium.data.picture_book.packages import STAMPS, fetch_package
from sensorium.data.picture_book.place import ROWS, rows_file
from sensorium.data.picture_book.svg import render_svg
from sensorium.media.image import load_image

# Hashes with fewer bits set are of nearly blank pictures and say nothing about likeness, as
# in `groups.group_pictures`.
CLEAR_BITS = 8


def build_drawing_book(
    config: PictureBookConfig, out: Path, packages: Path, book: Path, progress: Progress
) -> dict[str, int]:
    """Write the set to `out`, atomically.

    Args:
        book: a built picture-book, whose held-out pictures must not be taught here.

    Returns:
        Counts by source and split.
    """
    if out.exists() and rows_file(out / ROWS) is None:
        raise DataError("the folder exists and is not a picture set", where=str(out))
    heldout = [e for e in read_entries(book) if e["split"] == "heldout"]
    progress("fetching packages", 0, len(STYLES) + 3)
    stamps, names = fetch_package(STAMPS, packages), fetch_package(NAMES, packages)
    entries = [*_svg_stamps(stamps, config), *card_entries(fetch_package(CARDS, packages))]
    for number, style in enumerate(STYLES):
        entries += emoji_entries(style, fetch_package(style.package, packages), names)
        progress("drawing emoji", number + 1, len(STYLES))
    with atomic_folder(out) as folder:
        entries, hashes = write_images(entries, folder, config, progress)
        entries = _without_twins(entries, hashes, [book / e["image"] for e in heldout], folder)
        for number, entry in enumerate(entries):
            entry.group = number
        write_samples([entry.to_json() for entry in entries], folder, config.seed, config.variants)
    return dict(Counter(f"{e.source.split()[0]} {e.split}" for e in entries))


def _svg_stamps(deb: Path, config: PictureBookConfig) -> Iterator[Entry]:
    for entry in stamp_entries(deb, ".svg"):
        try:
            entry.content = render_svg(
                entry.content.decode("utf-8", errors="replace"), side_px=config.side_px
            )
        except MediaError:
            continue
        entry.id, entry.style = entry.id.replace("stamp/", "stamp-svg/", 1), "drawing"
        yield entry


def _without_twins(
    entries: list[Entry], hashes: list[Any], heldout: list[Path], folder: Path
) -> list[Entry]:
    """Entries that look like none of the held-out pictures; files of the others go."""
    tested = np.stack([difference_hash(load_image(path).to_pil()) for path in heldout])
    tested = tested[tested.sum(axis=1) > CLEAR_BITS]
    kept: list[Entry] = []
    for entry, bits in zip(entries, hashes, strict=True):
        alike = (tested ^ bits).sum(axis=1) <= MAX_BITS_APART
        if bits.sum() > CLEAR_BITS and bool(alike.any()):
            (folder / entry.image).unlink()
        else:
            kept.append(entry)
    return kept

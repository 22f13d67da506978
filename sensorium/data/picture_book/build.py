"""Build picture-book: fetch, name, shrink, group, split, write.

The result is a folder: `images/`, `pictures.jsonl` (one entry a line), and Samples in
`{captions,instruct}.{train,heldout}.jsonl`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.core.atomic import atomic_folder
from sensorium.core.config import Config
from sensorium.core.errors import DataError
from sensorium.core.hashing import stable_int
from sensorium.data.picture_book.corrections import corrected, read_corrections
from sensorium.data.picture_book.entries import (
    Entry,
    cap_names,
    clipart_entries,
    read_dictionary,
    shrink,
    stamp_entries,
)
from sensorium.data.picture_book.groups import difference_hash, group_pictures
from sensorium.data.picture_book.instruct import Catalogue, caption_sample, instruct_sample
from sensorium.data.picture_book.packages import CLIPART, STAMPS, WORDS, fetch_package
from sensorium.data.picture_book.place import ROWS, rows_file
from sensorium.data.picture_book.rows import read_rows, write_rows

Progress = Callable[[str, int, int], None]


class PictureBookConfig(Config):
    """What to build."""

    side_px: int = 256
    quality: int = 80
    heldout_share: float = 0.15
    seed: int = 7
    variants: int = 4
    """Instruction conversations for each training picture."""
    limit: int | None = None
    """Keep this many pictures, the most useful ones first; None: all."""


def build_picture_book(
    config: PictureBookConfig, out: Path, packages: Path, progress: Progress
) -> dict[str, int]:
    """Write the whole set to `out`, atomically.

    Returns:
        Counts by split and source.
    """
    if out.exists() and rows_file(out / ROWS) is None:
        raise DataError("the folder exists and is not a picture-book", where=str(out))
    progress("fetching packages", 0, 3)
    stamps = fetch_package(STAMPS, packages)
    progress("fetching packages", 1, 3)
    clipart = fetch_package(CLIPART, packages)
    progress("fetching packages", 2, 3)
    dictionary = read_dictionary(fetch_package(WORDS, packages))
    progress("naming pictures", 0, 1)
    entries = cap_names([*stamp_entries(stamps), *clipart_entries(clipart, dictionary)])
    with atomic_folder(out) as folder:
        entries, hashes = write_images(entries, folder, config, progress)
        _group(entries, hashes)
        _split(entries, config)
        # Once before names are put right, too: what has been taught must never become a test.
        _teach_unknown(entries)
        entries = corrected(entries, read_corrections())
        _teach_unknown(entries)
        write_samples([entry.to_json() for entry in entries], folder, config.seed, config.variants)
    return dict(Counter(f"{e.source.split()[0]} {e.split}" for e in entries))


def write_samples(
    entries: Sequence[dict[str, Any]], folder: Path, seed: int, variants: int
) -> None:
    """Write `pictures.jsonl` and the Samples made from it."""
    catalogue = Catalogue.of([e for e in entries if e["split"] == "train"])
    write_rows(folder / ROWS, entries)
    for split in ("train", "heldout"):
        mine = [e for e in entries if e["split"] == split]
        write_rows(folder / f"captions.{split}.jsonl", [caption_sample(e) for e in mine])
        write_rows(
            folder / f"instruct.{split}.jsonl",
            [
                instruct_sample(e, catalogue, seed, variant)
                for variant in range(variants if split == "train" else 1)
                for e in mine
            ],
        )


def write_images(
    entries: list[Entry], folder: Path, config: PictureBookConfig, progress: Progress
) -> tuple[list[Entry], list[Any]]:
    """Shrink and write all pictures that can be decoded.

    Returns:
        Their entries and difference hashes.
    """
    (folder / "images").mkdir()
    kept: list[Entry] = []
    hashes: list[Any] = []
    with ThreadPoolExecutor(2) as pool:
        shrunk = pool.map(lambda e: shrink(e, config.side_px, config.quality), entries)
        for done, (entry, result) in enumerate(zip(entries, shrunk, strict=True), start=1):
            progress("shrinking pictures", done, len(entries))
            if result is None:
                continue
            content, rgb = result
            entry.image = f"images/{entry.id.replace('/', '-')}.webp"
            entry.content = b""
            (folder / entry.image).write_bytes(content)
            hashes.append(difference_hash(rgb))
            kept.append(entry)
    return kept, hashes


def _group(kept: list[Entry], hashes: list[Any]) -> None:
    series = [f"{e.author}|{e.name}" if e.author else "" for e in kept]
    for entry, group in zip(kept, group_pictures(np.stack(hashes), series), strict=True):
        entry.group = group


def _split(entries: list[Entry], config: PictureBookConfig) -> None:
    """Whole groups go to the held-out split by a hash of their first member's id."""
    first: dict[int, str] = {}
    for entry in entries:
        first.setdefault(entry.group, entry.id)
    size = Counter(entry.group for entry in entries)
    for entry in entries:
        draw = stable_int("split", config.seed, first[entry.group]) % 10_000 / 10_000
        # A very large group is a theme of one author, not a set of twins; held out it
        # would be most of the benchmark.
        held = draw < config.heldout_share and size[entry.group] <= 12
        entry.split = "heldout" if held else "train"


def _teach_unknown(entries: list[Entry]) -> None:
    """Move held-out groups to training that show what no training picture shows: a name must
    have been seen to be said."""
    taught = {name for e in entries if e.split == "train" for name in e.accepted}
    for group in {e.group for e in entries if e.split == "heldout"}:
        members = [e for e in entries if e.group == group]
        if not all(taught & set(e.accepted) for e in members):
            for entry in members:
                entry.split = "train"
    order = {group: i for i, group in enumerate(dict.fromkeys(e.group for e in entries))}
    for entry in entries:
        entry.group = order[entry.group]


def small_part(folder: Path, out: Path, config: PictureBookConfig, max_bytes: int) -> int:
    """Copy the most useful part of a built set, images shrunk again, into `out`.

    Pictures whose names recur come first, because they can be learnt and tested; the split
    stays as it was.

    Returns:
        The number of pictures.
    """
    import io

    from PIL import Image as PILImage

    rows = read_entries(folder)
    common = Counter(name for row in rows for name in row["accepted"])
    rows.sort(
        key=lambda r: (
            r["category"] is None,
            -min(6, max(common[n] for n in r["accepted"])),
            stable_int("small", r["id"]),
        )
    )
    written, chosen = 0, []
    with atomic_folder(out) as target:
        (target / "images").mkdir()
        for row in rows:
            with PILImage.open(folder / row["image"], formats=("WEBP",)) as picture:
                small = picture.copy()
            small.thumbnail((config.side_px, config.side_px), PILImage.Resampling.LANCZOS)
            buffer = io.BytesIO()
            small.save(buffer, "WEBP", quality=config.quality, method=4)
            if written + buffer.tell() > max_bytes or len(chosen) == config.limit:
                break
            written += buffer.tell()
            (target / row["image"]).write_bytes(buffer.getvalue())
            chosen.append(row)
        chosen.sort(key=lambda r: r["id"])
        # Ships in every copy of the package: a tenth of the room.
        write_rows(target / f"{ROWS}.gz", chosen)
    return len(chosen)


def read_entries(folder: Path) -> list[dict[str, Any]]:
    """The rows of `pictures.jsonl`, or of `pictures.jsonl.gz`.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    file = rows_file(folder / ROWS)
    if file is None:
        raise DataError(
            f"no {ROWS}", where=str(folder), fix=f"run `sensorium data build {folder.name}`"
        )
    return [row for _, row in read_rows(file)]

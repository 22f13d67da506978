"""What a look at each picture put right: names, further right answers, categories.

Names are made from file titles and captions, which often name something else: the author, a
place in a desktop, one half of a compound, or the thing in Italian. `corrections.jsonl.gz` was written
looking at every picture, without knowing any model's answers. To change it: `gunzip` it, edit the lines
(they are read so, too), and `gzip -9n` it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sensorium.core.errors import DataError
from sensorium.data.picture_book.categories import CATEGORIES, broader_kind
from sensorium.data.picture_book.entries import Entry
from sensorium.data.picture_book.place import SHIPPED, rows_file
from sensorium.data.picture_book.rows import read_rows
from sensorium.data.picture_book.words import Naming, accepted_names, article

CORRECTIONS = SHIPPED / "corrections.jsonl"
KEYS = {"id", "name", "also", "not", "category", "drop"}


@dataclass(frozen=True, slots=True)
class Correction:
    """Of one picture; what is None or empty stays as it was."""

    name: str | None = None
    also: tuple[str, ...] = ()
    """Further answers that are right."""
    wrong: frozenset[str] = frozenset()
    """Answers that the name or its folder would suggest and that are not."""
    category: str | None = None
    has_category: bool = False
    drop: bool = False
    """Nothing in the picture can be named."""


def read_corrections(file: Path = CORRECTIONS) -> dict[str, Correction]:
    """Corrections by picture, from the file or its compressed form beside it.

    Raises:
        DataError: there is neither, or it is damaged; a line has no id, names an unknown key or
            category, or a picture twice.
    """
    there = rows_file(file)
    if there is None:
        raise DataError("no such file", where=str(file), fix="install the package again")
    found: dict[str, Correction] = {}
    for where, row in read_rows(there):
        if "id" not in row:
            raise DataError("no id", expected="the picture's id in pictures.jsonl", where=where)
        unknown = set(row) - KEYS
        if unknown:
            raise DataError(f"unknown key {min(unknown)!r}", expected=", ".join(sorted(KEYS)), where=where)
        if row.get("category") not in (None, *CATEGORIES):
            raise DataError(
                f"category {row['category']!r}", expected=", ".join(CATEGORIES), where=where
            )
        if row["id"] in found:
            raise DataError(f"picture {row['id']!r} is corrected twice", where=where)
        found[row["id"]] = Correction(
            name=row.get("name"),
            also=tuple(row.get("also", ())),
            wrong=frozenset(row.get("not", ())),
            category=row.get("category"),
            has_category="category" in row,
            drop=row.get("drop", False),
        )
    return found


def corrected(entries: Sequence[Entry], corrections: Mapping[str, Correction]) -> list[Entry]:
    """The entries that can be named, put right in place."""
    kept: list[Entry] = []
    for entry in entries:
        correction = corrections.get(entry.id)
        if correction is not None:
            if correction.drop:
                continue
            _correct(entry, correction)
        kept.append(entry)
    return kept


def _correct(entry: Entry, correction: Correction) -> None:
    accepted = set(entry.accepted)
    if correction.name:
        entry.name = correction.name
        entry.caption = f"{article(correction.name)} {correction.name}".strip()
        folder = entry.id.partition("/")[2].rpartition("/")[0]
        naming = Naming(entry.caption, entry.name, entry.name.split()[-1])
        accepted = set(accepted_names(naming, broader_kind(folder)))
    entry.accepted = sorted((accepted - correction.wrong) | set(correction.also) | {entry.name})
    if correction.has_category:
        entry.category = correction.category

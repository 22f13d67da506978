"""Names put right: what is corrected, what is refused, and that the shipped rows carry it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from sensorium.core.errors import DataError
from sensorium.data.picture_book.build import _teach_unknown, read_entries
from sensorium.data.picture_book.corrections import (
    CORRECTIONS,
    Correction,
    corrected,
    read_corrections,
)
from sensorium.data.picture_book.entries import Entry
from sensorium.data.picture_book.place import SHIPPED
from sensorium.data.picture_book.rows import write_rows
from sensorium.data.picture_book.words import Naming, accepted_names


def entry(identity: str, name: str, accepted: list[str], split: str = "train", group: int = 0) -> Entry:
    return Entry(
        id=identity, caption=f"a {name}", name=name, accepted=accepted, category="animal",
        style="drawing", source="here", licence="CC0", split=split, group=group,
    )  # fmt: skip


def test_a_new_name_takes_the_old_one_s_place() -> None:
    piccolo = entry("clipart/animals/birds/pinguino", "penguin piccolo", ["penguin piccolo", "piccolo"])
    (kept,) = corrected([piccolo], {piccolo.id: Correction(name="penguin", also=("seabird",))})
    assert (kept.name, kept.caption) == ("penguin", "a penguin")
    # The folder still says that it is a bird.
    assert kept.accepted == ["bird", "penguin", "seabird"]


def test_wrong_answers_and_categories_go_and_nameless_pictures_too() -> None:
    spider = entry("clipart/animals/bugs/spider", "spider", ["insect", "spider"])
    swirl = entry("clipart/swirl", "two", ["two"])
    other = entry("clipart/other", "cat", ["cat"])
    corrections = {
        spider.id: Correction(wrong=frozenset(["insect"]), has_category=True),
        swirl.id: Correction(drop=True),
    }
    kept = corrected([spider, swirl, other], corrections)
    assert [e.id for e in kept] == [spider.id, other.id]
    assert kept[0].accepted == ["spider"]
    assert kept[0].category is None
    assert kept[1].category == "animal"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a", "nmae": "cat"}, "unknown key 'nmae'"),
        ({"id": "a", "category": "beast"}, "category 'beast'"),
        ({"id": "b", "name": "cat"}, "'b' is corrected twice"),
        ({"name": "cat"}, "no id"),
    ],
)
@pytest.mark.parametrize("form", ["corrections.jsonl", "corrections.jsonl.gz"])
def test_bad_lines_are_named(tmp_path: Path, form: str, row: dict[str, str], message: str) -> None:
    write_rows(tmp_path / form, [{"id": "b", "name": "dog"}, row])
    with pytest.raises(DataError, match=f"{form}:2: .*{message}"):
        read_corrections(tmp_path / "corrections.jsonl")


def test_corrections_opened_for_editing_are_read(tmp_path: Path) -> None:
    """As `gunzip` leaves them."""
    (tmp_path / "corrections.jsonl").write_bytes(gzip.decompress(CORRECTIONS.with_name(f"{CORRECTIONS.name}.gz").read_bytes()))
    assert read_corrections(tmp_path / "corrections.jsonl") == read_corrections()
    with pytest.raises(DataError, match="no such file"):
        read_corrections(tmp_path / "other.jsonl")


def test_what_no_training_picture_shows_is_not_asked() -> None:
    entries = [
        entry("a", "cat", ["cat"]),
        entry("b", "cat", ["cat"], "heldout", 1),
        entry("c", "okapi", ["okapi"], "heldout", 2),
    ]
    _teach_unknown(entries)
    assert [e.split for e in entries] == ["train", "heldout", "train"]


def test_a_rose_is_a_flower_and_a_flower_no_rose() -> None:
    assert "flower" in accepted_names(Naming("a rose", "rose", "rose"), None)
    assert accepted_names(Naming("a petunia", "petunia", "petunia"), "flower") == ["flower", "petunia"]


def test_shipped_pictures_carry_their_corrections() -> None:
    corrections = read_corrections()
    rows = {row["id"]: row for row in read_entries(SHIPPED)}
    met = 0
    for identity, correction in corrections.items():
        row = rows.get(identity)
        if correction.drop:
            assert row is None
        if row is None:
            continue
        met += 1
        assert correction.name in (None, row["name"])
        assert set(correction.also) <= set(row["accepted"])
        assert not (correction.wrong - set(correction.also) - {row["name"]}) & set(row["accepted"])
        assert not correction.has_category or row["category"] == correction.category
    assert met > 1000

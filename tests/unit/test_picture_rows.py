"""Rows of picture sets: plain and compressed are alike, and what is damaged is named."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from sensorium.core.errors import DataError
from sensorium.data.picture_book.build import PictureBookConfig, read_entries, small_part
from sensorium.data.picture_book.place import ROWS, SHIPPED, book_folder
from sensorium.data.picture_book.rows import read_rows, write_rows

PLAIN, PACKED = ROWS, f"{ROWS}.gz"
# Some read a line's end in the separator inside, and JSON does not.
TOLD: list[dict[str, Any]] = [{"id": "a", "caption_zh": "一只猫"}, {"id": "b", "name": "two\u2028lines"}]


def test_both_forms_are_read_alike(tmp_path: Path) -> None:
    for form in (PLAIN, PACKED):
        write_rows(tmp_path / form, TOLD)
        assert [row for _, row in read_rows(tmp_path / form)] == TOLD
        assert [where for where, _ in read_rows(tmp_path / form)] == [f"{tmp_path / form}:{n}" for n in (1, 2)]
    assert gzip.decompress((tmp_path / PACKED).read_bytes()) == (tmp_path / PLAIN).read_bytes()


@pytest.mark.parametrize("form", [PLAIN, PACKED])
def test_a_set_in_the_data_folder_may_have_either_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("SENSORIUM_DATA", str(tmp_path))
    assert book_folder("best") == SHIPPED
    built = tmp_path / "picture-book"
    built.mkdir()
    with pytest.raises(DataError, match="data build picture-book"):
        book_folder("full")
    with pytest.raises(DataError, match=f"no {ROWS}.*data build picture-book"):
        read_entries(built)
    write_rows(built / form, TOLD)
    assert book_folder("best") == book_folder("full") == built
    assert read_entries(built) == TOLD


def test_what_is_shipped_is_written_so_again(tmp_path: Path) -> None:
    """The same lines, and neither a name nor a time in the file's head."""
    for name in (ROWS, "corrections.jsonl"):
        shipped = SHIPPED / f"{name}.gz"
        content = shipped.read_bytes()
        assert content[3:8] == bytes(5)
        write_rows(tmp_path / name, [row for _, row in read_rows(shipped)])
        assert (tmp_path / name).read_bytes() == gzip.decompress(content)
    small = tmp_path / "small"
    assert small_part(SHIPPED, small, PictureBookConfig(side_px=16, limit=3), max_bytes=10_000) == 3
    rows = read_entries(small)
    assert sorted(f.name for f in small.iterdir()) == ["images", PACKED]
    assert {(small / row["image"]).is_file() for row in rows} == {True}
    assert all(row in read_entries(SHIPPED) for row in rows)


def damaged(how: str) -> bytes:
    whole = gzip.compress(b'{"id": "a"}\n' * 400, mtime=0)
    middle = len(whole) // 2
    return {
        "cut off": whole[:-9],
        "in its head": whole[:5],
        "empty": b"",
        "not compressed": b'{"id": "a"}\n',
        "a byte changed": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        "checksum": whole[:-8] + bytes(4) + whole[-4:],
        "something behind": whole + b"more",
    }[how]


@pytest.mark.parametrize(
    "how", ["cut off", "in its head", "empty", "not compressed", "a byte changed", "checksum", "something behind"]
)
def test_damage_is_an_error_with_a_remedy(tmp_path: Path, how: str) -> None:
    (tmp_path / PACKED).write_bytes(damaged(how))
    with pytest.raises(DataError) as caught:
        read_entries(tmp_path)
    assert caught.value.where == str(tmp_path / PACKED)
    assert "damaged, or not compressed by gzip" in caught.value.found
    assert "install that again" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"), [(b'{"id": ', "not JSON"), (b"[1]", "a list; expected a JSON object"), (b"\xff", "not JSON"), (b"", "not JSON")]
)
@pytest.mark.parametrize("form", [PLAIN, PACKED])
def test_bad_lines_are_named(tmp_path: Path, form: str, line: bytes, message: str) -> None:
    content = b'{"id": "a"}\n' + line + b"\n"
    (tmp_path / form).write_bytes(gzip.compress(content) if form == PACKED else content)
    with pytest.raises(DataError, match=f"{form}:2: .*{message}"):
        read_entries(tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / PLAIN).mkdir()
    with pytest.raises(DataError, match=f"{ROWS}: not readable"):
        read_entries(tmp_path)

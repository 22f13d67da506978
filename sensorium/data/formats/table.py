"""CSV, TSV and Parquet tables of image and text."""

from __future__ import annotations

import csv
import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from sensorium.core.errors import DataError, MissingDependencyError
from sensorium.data.formats.rows import Row, RowSource, column_row
from sensorium.data.source import Source

# What `surrogateescape` makes of bytes that are not UTF-8.
NOT_TEXT = re.compile("[\udc80-\udcff]")


def open_table(path: Path, root: Path | None = None) -> Source:
    """One Sample for each row; columns are recognised by name.

    Raises:
        DataError: the file is not readable as a table.
    """
    root = root or path.parent
    if path.suffix.lower() == ".parquet":
        return _open_parquet(path, root)
    rows = _csv_rows(path, "\t" if path.suffix.lower() == ".tsv" else ",")

    def where(index: int) -> str:
        return f"{path}, row {index + 1}"

    def row(index: int) -> Row:
        found = rows[index]
        if isinstance(found, csv.Error):
            raise DataError(f"not readable as a row: {found}", where=where(index))
        return found

    def convert(row: Row, where: str) -> dict[str, Any]:
        if None in row:
            raise DataError(
                "more cells than columns", where=where, fix="quote texts that hold the separator"
            )
        for column, cell in row.items():
            if not _is_text(cell):
                raise DataError(f"column {column!r} is not UTF-8 text", where=where,
                                fix="save the table in UTF-8")  # fmt: skip
        return column_row(row, where)

    return RowSource(path.name, len(rows), row, convert, where=where, root=root)


def _csv_rows(path: Path, delimiter: str) -> list[dict[str, Any] | csv.Error]:
    """The rows of a file, broken ones too: one of them costs no other.

    Raises:
        DataError: the line of the columns' names cannot be read.
    """
    rows: list[dict[str, Any] | csv.Error] = []
    # Bytes that are no text become half surrogates, by which their row is known later.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.DictReader(stream, delimiter=delimiter)
        try:
            names = reader.fieldnames or ()
        except csv.Error as error:
            raise DataError(f"not readable as a table: {error}", where=str(path)) from None
        if not all(_is_text(name) for name in names):
            raise DataError("the columns' names are not UTF-8 text", where=str(path),
                            fix="save the table in UTF-8")  # fmt: skip
        while True:
            try:
                rows.append(next(reader))
            except StopIteration:
                return rows
            except csv.Error as error:
                rows.append(error)


def _is_text(cell: Any) -> bool:
    return not isinstance(cell, str) or NOT_TEXT.search(cell) is None


def _open_parquet(path: Path, root: Path) -> Source:
    return arrow_rows(path.name, [(path, read_parquet(path))], root)


def read_parquet(path: Path) -> Any:
    """A Parquet file as an Arrow table.

    Raises:
        DataError: it is damaged.
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingDependencyError(
            "Parquet needs pyarrow", fix="pip install -e '.[data]' in the clone"
        ) from None
    try:
        return pq.read_table(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"not readable as Parquet: {error}", where=str(path)) from None


def arrow_rows(name: str, tables: Sequence[tuple[Path, Any]], root: Path | None) -> RowSource:
    """Rows of Arrow tables, one after the other; only the asked row is turned into Python
    objects."""
    ends = list(accumulate(table.num_rows for _, table in tables))

    def place(index: int) -> tuple[Path, Any, int]:
        which = bisect_right(ends, index)
        path, table = tables[which]
        return path, table, index - (ends[which - 1] if which else 0)

    def row(index: int) -> Row:
        _, table, inside = place(index)
        return table.slice(inside, 1).to_pylist()[0]

    def where(index: int) -> str:
        path, _, inside = place(index)
        return f"{path}, row {inside + 1}"

    return RowSource(name, ends[-1] if ends else 0, row, column_row, where=where, root=root)

"""CSV, TSV and Parquet tables of image and text."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from sensorium.core.errors import DataError, MissingDependencyError
from sensorium.data.formats.rows import Row, RowSource, column_row
from sensorium.data.source import Source


def open_table(path: Path, root: Path | None = None) -> Source:
    """One Sample for each row; columns are recognised by name.

    Raises:
        DataError: the file is not readable as a table.
    """
    root = root or path.parent
    if path.suffix.lower() == ".parquet":
        return _open_parquet(path, root)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows: list[dict[str, Any]] = list(csv.DictReader(stream, delimiter=delimiter))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"not readable as a table: {error}", where=str(path)) from None

    def convert(row: Row, where: str) -> dict[str, Any]:
        if None in row:
            raise DataError(
                "more cells than columns", where=where, fix="quote texts that hold the separator"
            )
        return column_row(row, where)

    return RowSource(path.name, len(rows), rows.__getitem__, convert,
                     where=lambda i: f"{path}, row {i + 1}", root=root)  # fmt: skip


def _open_parquet(path: Path, root: Path) -> Source:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingDependencyError(
            "Parquet needs pyarrow", fix="pip install -e '.[data]' in the clone"
        ) from None
    try:
        table = pq.read_table(path, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"not readable as Parquet: {error}", where=str(path)) from None
    return arrow_rows(path, table, root)


def arrow_rows(path: Path, table: Any, root: Path | None) -> Source:
    """Rows of an Arrow table; only the asked row is turned into Python objects."""
    return RowSource(
        path.name,
        table.num_rows,
        lambda i: table.slice(i, 1).to_pylist()[0],
        column_row,
        where=lambda i: f"{path}, row {i + 1}",
        root=root,
    )

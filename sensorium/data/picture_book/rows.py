"""Rows of a picture set: a JSON object a line, in a plain file or a compressed one (`.jsonl.gz`)."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sensorium.core.atomic import atomic_path, atomic_writer
from sensorium.core.errors import DataError
from sensorium.data.source import read_json


def read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row, behind its file and line.

    Raises:
        DataError: the file cannot be read or is damaged, or a line is no JSON object.
    """
    for number, line in enumerate(_content(file).splitlines(), start=1):
        where = f"{file}:{number}"
        row = read_json(line, where)
        if not isinstance(row, dict):
            raise DataError(f"a {type(row).__name__}", expected="a JSON object", where=where)
        yield where, row


def _content(file: Path) -> bytes:
    try:
        content = file.read_bytes()
        if file.suffix != ".gz":
            return content
        if not content:  # `decompress` takes nothing for the content of nothing.
            raise EOFError("the file is empty")
        return gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"damaged, or not compressed by gzip: {error}",
            where=str(file),
            fix="copy it again from where it is whole; if it came with the package, install that again",
        ) from None
    except OSError as error:
        raise DataError(f"not readable: {error.strerror}", where=str(file)) from None


def write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one row a line, atomically; compressed, without name and time, where the name ends in `.gz`."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if file.suffix == ".gz":
        with atomic_path(file) as temporary:
            temporary.write_bytes(gzip.compress("".join(lines).encode(), 9, mtime=0))
    else:
        with atomic_writer(file) as stream:
            stream.writelines(lines)

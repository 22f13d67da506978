"""Sources of Samples: random access by index, identity of rows for error messages.

A source knows its length and gives its i-th Sample; everything above (mixtures, order,
resuming) is arithmetic on indices.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from sensorium.core.errors import DataError
from sensorium.core.sample import Sample, parse_sample


class Source(Protocol):
    """Random access to Samples."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """The Sample of a row.

        Raises:
            DataError: naming file and row.
        """
        ...


def place_of(source: Source, row: int) -> str:
    """Where a row stands, in the source's own words."""
    place = getattr(source, "where", None)
    return str(place(row)) if callable(place) else f"{source.name}, row {row + 1}"


def read_row(source: Source, row: int) -> Sample:
    """The Sample of a row.

    Raises:
        DataError: it cannot be read; the message names the row, whatever the source says.
    """
    try:
        return source[row]
    except DataError as error:
        where = place_of(source, row)
        if where in str(error):
            raise
        raise error.at(where) from None


def read_json(content: str | bytes, where: str) -> Any:
    """A JSON value.

    Raises:
        DataError: it is none.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise DataError("JSON is nested too deeply", where=where) from None
    except ValueError as error:
        # Bytes that are no text, and numbers of thousands of digits, count too.
        raise DataError(f"not JSON: {error}", where=where) from None


class JsonlSource:
    """A file of Samples, one a line; only line offsets are kept in memory."""

    def __init__(self, path: Path, root: Path | None = None) -> None:
        if not path.is_file():
            raise DataError("no such file", where=str(path))
        self.path = path
        self.root = root or path.parent
        self.name = path.name
        self._offsets: list[int] = []
        self._lines: list[int] = []
        with path.open("rb") as stream:
            position = 0
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    self._offsets.append(position)
                    self._lines.append(number)
                position += len(line)

    def __len__(self) -> int:
        return len(self._offsets)

    def where(self, index: int) -> str:
        """File and line of a row."""
        return f"{self.path}:{self._lines[index]}"

    def raw(self, index: int) -> Any:
        """The row's JSON value.

        Raises:
            DataError: the line is not JSON.
        """
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._offsets[index])
                line = stream.readline()
        except OSError as error:
            raise DataError(f"not readable: {error.strerror}", where=self.where(index)) from None
        return read_json(line, self.where(index))

    def __getitem__(self, index: int) -> Sample:
        return parse_sample(self.raw(index), where=self.where(index), root=self.root)


class ListSource:
    """Samples held in memory."""

    def __init__(self, name: str, samples: Sequence[Sample]) -> None:
        self.name = name
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def where(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


class Over:
    """Another source, of which each Sample is changed; rows and their places stay."""

    def __init__(self, source: Source, how: str) -> None:
        """Take a source, and the word for what becomes of it."""
        self.name = f"{source.name}, {how}"
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def where(self, index: int) -> str:
        return place_of(self._source, index)

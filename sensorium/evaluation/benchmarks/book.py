"""What the picture-book benchmarks share: the held-out entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sensorium.data.picture_book.build import read_entries
from sensorium.data.picture_book.instruct import Catalogue
from sensorium.data.picture_book.place import Part, book_folder
from sensorium.evaluation.benchmarks.base import BenchmarkConfig, spread


class BookBenchmark(BenchmarkConfig):
    """Questions about held-out pictures; near-duplicates never straddle the split."""

    part: Part = "best"
    seed: int = 23

    def folder(self) -> Path:
        return book_folder(self.part)

    def catalogue(self) -> Catalogue:
        """Of the training pictures: names that can be asked for."""
        return Catalogue.of([e for e in read_entries(self.folder()) if e["split"] == "train"])

    def heldout(self) -> list[dict[str, Any]]:
        """Held-out entries, at most `limit`, evenly spread."""
        rows = [e for e in read_entries(self.folder()) if e["split"] == "heldout"]
        return spread(rows, self.limit)

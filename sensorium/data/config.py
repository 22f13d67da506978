"""Sources as config nodes: what a stage trains on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny

from sensorium.core.config import Config, kinds
from sensorium.core.errors import DataError
from sensorium.core.sample import Sample, parse_sample
from sensorium.core.tables import NameTable
from sensorium.data.augmenting import AugmentConfig
from sensorium.data.formats import FORMATS
from sensorium.data.instructed import Instructed
from sensorium.data.picture_book.build import read_entries
from sensorium.data.picture_book.instruct import (
    Catalogue,
    caption_sample,
    drawing_sample,
    instruct_sample,
    sheet_sample,
    words_sample,
)
from sensorium.data.picture_book.place import Part, book_folder
from sensorium.data.scenes import caption, drawn, scene_sample, scene_sheet
from sensorium.data.source import Source


class SourceConfig(Config):
    """One source of a mixture."""

    kind: str
    weight: float | None = None
    """Share of the mixture; None: its number of rows."""
    loss_weight: float = Field(default=1.0, gt=0.0)
    """What the loss of its tokens is multiplied by; a step divides by their number all the same."""
    augment: AugmentConfig | None = None
    take: int | None = None
    """Only the first rows."""

    def open(self) -> Source:
        """The Samples.

        Raises:
            DataError: the data is missing or malformed.
        """
        raise TypeError(f"{type(self).__name__} does not define open()")


class FileSource(SourceConfig):
    """Samples, or a foreign format, on disk."""

    kind: Literal["file"] = "file"
    path: str
    format: str = "auto"
    """`auto` or a name of `data.formats.FORMATS`."""
    media_root: str | None = None
    system: str | None = None
    """The system message of rows that have none; None: the chat template's own."""

    def open(self) -> Source:
        from sensorium.data.formats import open_path

        root = Path(self.media_root) if self.media_root else None
        source = open_path(Path(self.path), self.format, root)
        return source if self.system is None else Instructed(source, self.system)


class PictureBookSource(SourceConfig):
    """Conversations made from picture-book's entries, in memory."""

    kind: Literal["picture_book"] = "picture_book"
    part: Part = "best"
    """`best`: the whole set where it has been built, else the shipped part; `drawings`:
    drawing-book, which is built beside it."""
    task: Literal["words", "captions", "drawings", "instruct", "sheets"] = "instruct"
    """`sheets`: several questions about one picture, each asked afresh. `drawings`: a caption, and the picture as its answer."""
    split: Literal["train", "heldout"] = "train"
    variants: int = 4
    seed: int = 7

    def open(self) -> Source:
        folder = book_folder(self.part)
        entries = read_entries(folder)
        catalogue = Catalogue.of([e for e in entries if e["split"] == "train"])
        mine = [e for e in entries if e["split"] == self.split]
        if self.task in ("words", "captions", "drawings"):
            one = {"words": words_sample, "captions": caption_sample, "drawings": drawing_sample}[self.task]
            return MadeSource(f"picture-book {self.task}", len(mine), lambda i: one(mine[i]), folder)

        several = sheet_sample if self.task == "sheets" else instruct_sample

        def make(index: int) -> dict[str, Any]:
            variant, i = divmod(index, len(mine))
            return several(mine[i], catalogue, self.seed, variant)

        return MadeSource(f"picture-book {self.task}", len(mine) * self.variants, make, folder)


class ScenesSource(SourceConfig):
    """Synthetic scenes, drawn when they are asked for."""

    kind: Literal["scenes"] = "scenes"
    task: Literal["captions", "instruct", "sheets"] = "instruct"
    seed: int = 11
    count: int = 4000

    def open(self) -> Source:
        def make(index: int) -> dict[str, Any]:
            scene, image = drawn(self.seed, index)
            if self.task == "instruct":
                return scene_sample(scene, image, self.seed, index)
            if self.task == "sheets":
                return scene_sheet(scene, image, self.seed, index)
            return {"id": f"scene/{self.seed}/{index}#caption", "messages": [
                {"role": "user", "content": [{"type": "image", "image": image}]},
                {"role": "assistant", "content": caption(scene)}]}  # fmt: skip

        return MadeSource(f"scenes {self.task}", self.count, make, None)


class MadeSource:
    """Samples computed from their index."""

    def __init__(
        self, name: str, length: int, make: Callable[[int], dict[str, Any]], root: Path | None
    ) -> None:
        self.name = name
        self._length = length
        self._make = make
        self._root = root

    def __len__(self) -> int:
        return self._length

    def where(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def __getitem__(self, index: int) -> Sample:
        return parse_sample(self._make(index), where=self.where(index), root=self._root)


class Head:
    """The first rows of a source."""

    def __init__(self, source: Source, rows: int) -> None:
        if rows < 1:
            raise DataError(f"take: {rows}", expected="at least 1")
        self.name = source.name
        self._source = source
        self._rows = min(rows, len(source))

    def __len__(self) -> int:
        return self._rows

    def where(self, index: int) -> str:
        place = getattr(self._source, "where", None)
        return str(place(index)) if callable(place) else f"{self.name}[{index}]"

    def __getitem__(self, index: int) -> Sample:
        return self._source[index]


SOURCES = NameTable(
    "source",
    {
        "file": "sensorium.data.config:FileSource",
        "picture_book": "sensorium.data.config:PictureBookSource",
        "scenes": "sensorium.data.config:ScenesSource",
        "experts": "sensorium.data.told:ExpertSource",
        "edits": "sensorium.data.edits:EditsSource",
        "both_ways": "sensorium.data.both_ways:BothWaysSource",
        "laid_out": "sensorium.data.laid_out:LaidOutSource",
        "composites": "sensorium.data.located:CompositesSource",
        "located_scenes": "sensorium.data.located:LocatedScenesSource",
        "requests": "sensorium.data.requests:RequestsSource",
        "sought": "sensorium.data.sought:SoughtSource",
        "drawn_scenes": "sensorium.data.drawn:DrawnScenesSource",
        "drawn_book": "sensorium.data.drawn:DrawnBookSource",
        "wishes": "sensorium.data.wishes:WishesSource",
    },
)
AnySource = Annotated[SerializeAsAny[SourceConfig], kinds(SOURCES, SourceConfig)]


def open_sources(configs: tuple[SourceConfig, ...]) -> tuple[list[Source], list[float]]:
    """All sources of a mixture and their weights.

    Raises:
        DataError: one is missing or empty.
    """
    opened: list[Source] = []
    weights: list[float] = []
    for config in configs:
        source = config.open()
        if config.take is not None:
            source = Head(source, config.take)
        if not len(source):
            raise DataError(f"source {source.name!r} has no rows")
        opened.append(source)
        weights.append(float(len(source)) if config.weight is None else config.weight)
    return opened, weights


__all__ = ["FORMATS", "AnySource", "FileSource", "PictureBookSource", "ScenesSource",
           "SourceConfig", "open_sources"]  # fmt: skip

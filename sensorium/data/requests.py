"""Requests for media, made of the captions that ship: to see that a stage runs, not to learn much.

Each asks for one kind of medium by a caption, and the answer is that medium, of which nothing is known but the way that is
right: the first for every other caption.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from sensorium.core.hands import MadeKind
from sensorium.data.config import MadeSource, SourceConfig
from sensorium.data.picture_book.build import read_entries
from sensorium.data.picture_book.place import book_folder
from sensorium.data.source import Source

WAYS = ("first", "other")


class RequestsSource(SourceConfig):
    """One request for each kind in turn."""

    kind: Literal["requests"] = "requests"
    kinds: tuple[MadeKind, ...] = Field(default=("image",), min_length=1)
    seen: bool = False
    """The captioned picture stands in front of the request."""

    def open(self) -> Source:
        folder = book_folder("shipped")
        entries = [entry for entry in read_entries(folder) if entry["split"] == "train"]

        def make(index: int) -> dict[str, Any]:
            number, k = divmod(index, len(self.kinds))
            kind, entry = self.kinds[k], entries[number]
            seen = [{"type": "image", "image": entry["image"]}] if self.seen else []
            return {"id": f"request/{kind}/{number}", "messages": [
                {"role": "user", "content": [*seen, {"type": "text", "text": entry["caption"]}]},
                {"role": "assistant", "content": [{"type": kind, kind: {"way": WAYS[number % 2]}}]},
            ]}  # fmt: skip

        return MadeSource("requests", len(entries) * len(self.kinds), make, folder)

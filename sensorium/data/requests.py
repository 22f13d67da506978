"""Requests for media, made of the captions that ship: to see that a stage runs, not to learn much.

Each asks for one kind of medium by a caption, and the answer is that medium, of which nothing is known but the way that is
right: the first for every other caption. Where media are `held`, it is one that can be learned from: the picture, two of them as
a video, a tone. Where they are `read`, they stand in the question, and the caption is the answer.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from sensorium.core.hands import MadeKind
from sensorium.data.config import MadeSource, SourceConfig
from sensorium.data.picture_book.build import read_entries
from sensorium.data.picture_book.place import book_folder
from sensorium.data.source import Source
from sensorium.media.audio_file import wav_bytes

WAYS = ("first", "other")
RATE_HZ, SECONDS = 8000, 0.1
"""Of tones, each of which is some Hz higher than the one before:"""
LOWEST_HZ, HIGHER_HZ = 440, 20


class RequestsSource(SourceConfig):
    """One request for each kind in turn."""

    kind: Literal["requests"] = "requests"
    kinds: tuple[MadeKind, ...] = Field(default=("image",), min_length=1)
    seen: bool = False
    """The captioned picture stands in front of the request; or, in turn, one of each of `seen_kinds`."""
    seen_kinds: tuple[MadeKind, ...] = Field(default=("image",), min_length=1)
    read: bool = False
    """Media are asked about."""
    held: bool = False
    """Answers hold media that can be learned from."""

    def open(self) -> Source:
        folder = book_folder("shipped")
        entries = [entry for entry in read_entries(folder) if entry["split"] == "train"]

        def make(index: int) -> dict[str, Any]:
            number, k = divmod(index, len(self.kinds))
            kind, entry = self.kinds[k], entries[number]
            if self.read:
                return {"id": f"read/{kind}/{number}", "messages": [
                    {"role": "user", "content": [{"type": kind, kind: held(kind, number)}, {"type": "text", "text": "generate a caption"}]},
                    {"role": "assistant", "content": entry["caption"]},
                ]}  # fmt: skip
            shown = self.seen_kinds[(number + k) % len(self.seen_kinds)]
            seen = [{"type": shown, shown: held(shown, number)}] if self.seen else []
            return {"id": f"request/{kind}/{number}", "messages": [
                {"role": "user", "content": [*seen, {"type": "text", "text": entry["caption"]}]},
                {"role": "assistant", "content": [{"type": kind, kind: held(kind, number) if self.held else {"way": WAYS[number % 2]}}]},
            ]}  # fmt: skip

        def held(kind: MadeKind, number: int) -> Any:
            pictures = [entries[(number + i) % len(entries)]["image"] for i in range(2)]
            return {"image": pictures[0], "video": pictures, "audio": _tone(number)}[kind]

        return MadeSource("requests", len(entries) * len(self.kinds), make, folder)


def _tone(number: int) -> bytes:
    """A WAV file of a sound that dies away."""
    times_N = np.arange(round(RATE_HZ * SECONDS)) / RATE_HZ
    return wav_bytes(np.sin(2 * np.pi * (LOWEST_HZ + HIGHER_HZ * number) * times_N) * np.exp(-times_N / SECONDS), RATE_HZ)

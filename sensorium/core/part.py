"""One piece of a message, and how it is read from JSON; `core/sample.py` shows its forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sensorium.core.config import as_mapping
from sensorium.core.errors import DataError
from sensorium.core.naming import did_you_mean

MEDIA_KINDS: tuple[str, ...] = ("image", "audio", "video", "points", "series", "document")
PLACE_KINDS: tuple[str, ...] = ("boxes", "points2d")
LOCATED_KINDS: tuple[str, ...] = (*PLACE_KINDS, "mask")
"""Parts that say where in a picture something is; it may not be moved then."""
MISSING = "missing"
"""Stands in an answer for a medium that could not be made, or a box that was cut off: its kind, and why."""
ANSWER_KINDS: tuple[str, ...] = (*LOCATED_KINDS, "retrieved", MISSING)
PART_TYPES: tuple[str, ...] = ("text", *MEDIA_KINDS, *ANSWER_KINDS)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a medium comes from that was found, not made."""

    file: str
    """As the index lists it."""
    similarity: float | None = None
    """Cosine with what was looked for, -1..1; None: it is not known."""

    def to_json(self) -> dict[str, Any]:
        return {"file": self.file} | ({} if self.similarity is None else {"similarity": round(self.similarity, 4)})

    def __str__(self) -> str:
        return self.file if self.similarity is None else f"{self.file} (similarity {self.similarity:.2f})"


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a message: text, a medium, or an answer medium."""

    type: str
    value: Any
    prompt: str | None = None
    """Of a medium in an answer: what its generator is told, where that is told by text."""
    pool: int = 1
    """Of a frame that is read: `VideoConfig.pool`."""
    source: Origin | None = None
    """Of a medium that was found in an index."""
    speech: bool = False
    """Whether it is the answer's own words as sound, or says why there is none: nothing that an answer holds beside them,
    so that no model reads it or learns from it."""

    @property
    def is_media(self) -> bool:
        return self.type in MEDIA_KINDS

    def to_json(self) -> dict[str, Any]:
        value = str(self.value) if isinstance(self.value, Path) else self.value
        told = {} if self.prompt is None else {"prompt": self.prompt}
        found = {} if self.source is None else {"source": self.source.to_json()}
        return {"type": self.type, self.type: value, **told, **found, **({"speech": True} if self.speech else {})}


def read_part(value: Any, where: str) -> Part:
    """A part from its JSON form, or as it is.

    Raises:
        DataError: it is malformed.
    """
    if isinstance(value, Part):
        return value
    if isinstance(value, str):
        check_text(value, where)
        return Part("text", value)
    part = as_mapping(value)
    if part is None or "type" not in part:
        raise DataError(f"part is {what_is(value)}", expected="an object with 'type'", where=where)
    kind = part["type"]
    if kind not in PART_TYPES:
        raise DataError(f"unknown part type {kind!r}", where=where, fix=did_you_mean(str(kind), PART_TYPES))
    if kind not in part:
        raise DataError(f"part of type {kind!r} has no {kind!r} value", where=where)
    if kind == "text" and not isinstance(part["text"], str):
        raise DataError(f"text is {what_is(part['text'])}", expected="a string", where=where)
    if kind == "text":
        check_text(part["text"], where)
    prompt = part.get("prompt", "")
    if not isinstance(prompt, str):
        raise DataError(f"prompt is {what_is(prompt)}", expected="a string", where=where)
    check_text(prompt, where)
    return Part(kind, part[kind], part.get("prompt"), source=_source(part.get("source")), speech=part.get("speech") is True)


def _source(value: Any) -> Origin | None:
    """Rows of others may have something else under this name, which says nothing to us."""
    found = as_mapping(value)
    if found is None or not isinstance(found.get("file"), str):
        return None
    similarity = found.get("similarity")
    if isinstance(similarity, bool) or not isinstance(similarity, int | float):
        return Origin(found["file"])
    return Origin(found["file"], float(similarity))


def check_text(text: str, where: str) -> None:
    """Whether it is text: half a surrogate pair is JSON and none.

    Raises:
        DataError: it is not.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"text is not valid Unicode: {error.reason}", where=where) from None


def as_sequence(value: Any) -> Sequence[Any] | None:
    """The value as a list-like, or None where it is none; text is not a list."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return None
    return cast(Sequence[Any], value)


def what_is(value: Any) -> str:
    """What was found in place of something else, for an error."""
    if value is None:
        return "empty"
    sequence = as_sequence(value)
    if sequence is not None and not sequence:
        return "an empty list"
    return type(value).__name__

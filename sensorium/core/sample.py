"""The Sample: one conversation, the one data shape of the whole toolkit.

On disk a Sample is JSON; a part's key equals its type, and media are relative paths:

    {"id": "cat-1", "messages": [
        {"role": "user", "content": [{"type": "image", "image": "cat.png"},
                                     {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}]}

A message's `content` may also be a plain string. In memory a medium may be a path,
bytes, a PIL image or an array.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from sensorium.core.config import as_mapping
from sensorium.core.errors import DataError
from sensorium.core.naming import did_you_mean

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = ("system", "user", "assistant")
MEDIA_KINDS: tuple[str, ...] = ("image", "audio", "video", "points", "series", "document")
ANSWER_KINDS: tuple[str, ...] = ("boxes", "points2d", "mask", "retrieved")
PART_TYPES: tuple[str, ...] = ("text", *MEDIA_KINDS, *ANSWER_KINDS)


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a message: text, a medium, or an answer medium."""

    type: str
    value: Any

    @property
    def is_media(self) -> bool:
        return self.type in MEDIA_KINDS

    def to_json(self) -> dict[str, Any]:
        value = str(self.value) if isinstance(self.value, Path) else self.value
        return {"type": self.type, self.type: value}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts, joined without a separator."""
        return "".join(part.value for part in self.content if part.type == "text")

    def to_json(self) -> dict[str, Any]:
        return {"role": self.role, "content": [part.to_json() for part in self.content]}


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation with its identity and whatever is known about it."""

    messages: tuple[Message, ...]
    id: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    root: Path | None = None
    """Folder that relative media paths start from; not part of the JSON."""

    def media(self) -> Iterator[Part]:
        """The media parts in reading order."""
        for message in self.messages:
            for part in message.content:
                if part.is_media:
                    yield part

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"id": self.id} if self.id else {}
        value["messages"] = [message.to_json() for message in self.messages]
        if self.meta:
            value["meta"] = dict(self.meta)
        return value


def parse_sample(value: Any, *, where: str = "sample", root: Path | None = None) -> Sample:
    """Read a Sample from its JSON form (or its in-memory form with live media).

    Raises:
        DataError: naming the place and the nearest legal name.
    """
    row = as_mapping(value)
    if row is None:
        raise DataError(f"row is {_kind(value)}", expected="an object with 'messages'", where=where)
    extra = {str(key) for key in row} - {"id", "messages", "meta"}
    if extra:
        key = sorted(extra)[0]
        raise DataError(
            f"unknown key {key!r}", where=where, fix=did_you_mean(key, ("id", "messages", "meta"))
        )
    if "messages" not in row:
        raise DataError("no 'messages'", expected="a list of messages", where=where)
    meta = as_mapping(row.get("meta", {}))
    if meta is None:
        raise DataError(f"'meta' is {_kind(row['meta'])}", expected="an object", where=where)
    messages = parse_messages(row["messages"], where=where)
    return Sample(messages=messages, id=str(row.get("id", "")), meta=dict(meta), root=root)


def parse_messages(value: Any, *, where: str = "messages") -> tuple[Message, ...]:
    """Read the messages of a conversation.

    Raises:
        DataError: the conversation is empty or a message, role or part is malformed.
    """
    turns = _as_sequence(value)
    if turns is None:
        raise DataError(f"'messages' is {_kind(value)}", expected="a list", where=where)
    if not turns:
        raise DataError(
            "the conversation is empty", expected="at least one message", where=where
        )
    return tuple(_parse_message(m, f"{where}, message {i + 1}") for i, m in enumerate(turns))


def _parse_message(value: Any, where: str) -> Message:
    if isinstance(value, Message):
        return value
    turn = as_mapping(value)
    if turn is None or "role" not in turn or "content" not in turn:
        raise DataError(
            f"message is {_kind(value)}", expected="an object with 'role' and 'content'", where=where
        )
    role = turn["role"]
    if role not in ROLES:
        raise DataError(f"unknown role {role!r}", where=where, fix=did_you_mean(str(role), ROLES))
    content = turn["content"]
    if isinstance(content, str):
        _check_text(content, where)
        return Message(role=role, content=(Part("text", content),))
    parts = _as_sequence(content)
    if not parts:
        raise DataError(
            f"'content' is {_kind(content)}", expected="text or a list of parts", where=where
        )
    return Message(role=role, content=tuple(_parse_part(part, where) for part in parts))


def _parse_part(value: Any, where: str) -> Part:
    if isinstance(value, Part):
        return value
    if isinstance(value, str):
        _check_text(value, where)
        return Part("text", value)
    part = as_mapping(value)
    if part is None or "type" not in part:
        raise DataError(f"part is {_kind(value)}", expected="an object with 'type'", where=where)
    kind = part["type"]
    if kind not in PART_TYPES:
        raise DataError(
            f"unknown part type {kind!r}", where=where, fix=did_you_mean(str(kind), PART_TYPES)
        )
    if kind not in part:
        raise DataError(f"part of type {kind!r} has no {kind!r} value", where=where)
    if kind == "text" and not isinstance(part["text"], str):
        raise DataError(f"text is {_kind(part['text'])}", expected="a string", where=where)
    if kind == "text":
        _check_text(part["text"], where)
    return Part(kind, part[kind])


def _check_text(text: str, where: str) -> None:
    """Half a surrogate pair is JSON but not text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"text is not valid Unicode: {error.reason}", where=where) from None


def _as_sequence(value: Any) -> Sequence[Any] | None:
    """The value as a list-like, or None where it is none; text is not a list."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return None
    return cast(Sequence[Any], value)


def _kind(value: Any) -> str:
    if value is None:
        return "empty"
    sequence = _as_sequence(value)
    if sequence is not None and not sequence:
        return "an empty list"
    return type(value).__name__

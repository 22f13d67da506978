"""Conversations -> the pieces that are tokenised, as a template writes them.

Assistant text and its closing are learned; `ChatTemplate` names the exceptions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

from sensorium.core.errors import ConfigError
from sensorium.core.sample import MISSING, PLACE_KINDS, Message, Part
from sensorium.text.template import ChatTemplate

MADE = "made"
"""Type of a part of the rendering alone, whose value is the Sample's own part."""
TOKEN = "token"
"""The same, whose value is a control token: what stands around the frames of a video."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of template output: plain text, a control token, a medium, places in a picture, or a medium that the
    model makes."""

    kind: Literal["text", "control", "media", "places", "made"]
    value: str | Part
    learn: bool


def render(
    messages: Sequence[Message], template: ChatTemplate, *, answer_next: bool = False,
    only_last: bool = False, made: Collection[str] = (), drawn: Collection[str] = (),
) -> Iterator[Piece]:  # fmt: skip
    """The pieces of a conversation; assistant text and its closing are learned.

    Args:
        answer_next: end with the opening of an assistant turn, for generation.
        only_last: of the answers only one in the last message is learned.
        made: kinds of media that the model makes, where an answer holds them.
        drawn: those of them that are written as tokens. One at the front of an answer stands right behind the prompt, as where one
            is asked for.
    """
    if template.default_system and (not messages or messages[0].role != "system"):
        yield from _literal(template.before["system"], template, learn=False)
        yield Piece("text", template.default_system, learn=False)
        yield from _literal(template.after["system"], template, learn=False)
    opened = False
    """Whether a medium awaits the end of its chunk."""
    numbers = count(1)
    for number, message in enumerate(messages, start=1):
        answer = message.role == "assistant"
        learn = answer and (not only_last or message is messages[-1])
        at_once = answer and any(part.type in drawn for part in message.content[:1])
        if answer and made:
            message = _as_made(message, made)
        if template.media_first:
            media, message = _parted(message)
            yield from _content(media, template, numbers, learn=learn)
        yield from _literal(template.before[message.role], template, learn=False)
        if answer and template.located and any(part.type in PLACE_KINDS for part in message.content):
            yield from _literal(template.located, template, learn=False)
        elif answer and template.answer_prefix and not at_once:
            yield Piece("text", template.answer_prefix, learn=learn)
        closed = True
        if template.chunk_end:
            yield from _chunks(message, template, numbers, opened=opened, learn=learn)
            closed = opened or any(part.is_media for part in message.content)
            opened = closed and not answer
        else:
            yield from _content(message, template, numbers, learn=learn)
        if answer and template.between is not None and number < len(messages):
            yield from _literal(template.between, template, learn=False)
        else:
            yield from _literal(template.after[message.role], template, learn=learn and closed)
    if answer_next:
        yield from _literal(template.before["assistant"], template, learn=False)


def _as_made(message: Message, made: Collection[str]) -> Message:
    """The message with what the model makes as parts of their own type."""
    parts = (Part(MADE, part) if part.type in made else part for part in message.content)
    return Message(message.role, tuple(parts))


def _parted(message: Message) -> tuple[Message, Message]:
    """The media of a message, and the rest of it."""
    media = tuple(part for part in message.content if part.is_media or part.type == TOKEN)
    rest = tuple(part for part in message.content if not (part.is_media or part.type == TOKEN))
    return Message(message.role, media), Message(message.role, rest)


def _chunks(
    message: Message, template: ChatTemplate, numbers: Iterator[int], *, opened: bool, learn: bool
) -> Iterator[Piece]:
    """A message whose media each begin a chunk.

    Args:
        opened: a medium in front of the message awaits the end of its chunk.
    """
    for part in message.content:
        if part.is_media and opened:
            yield from _literal(template.chunk_end, template, learn=learn)
        opened = opened or part.is_media
        yield from _content(Message(message.role, (part,)), template, numbers, learn=learn and opened)


def _content(
    message: Message, template: ChatTemplate, numbers: Iterator[int], *, learn: bool
) -> Iterator[Piece]:
    """The pieces of what a message says; its media take the next numbers."""
    for part in message.content:
        if part.is_media:
            before = template.media_before.replace("{n}", str(next(numbers)))
            yield from _literal(before, template, learn=False)
            yield Piece("media", part, learn=False)
            yield from _literal(template.media_after, template, learn=False)
        elif part.type == "text":
            if part.value and (template.user_text or message.role != "user"):
                yield Piece("text", part.value, learn=learn)
        elif part.type == MADE:
            yield Piece("made", part.value, learn=learn)
        elif part.type == TOKEN:
            yield Piece("control", part.value, learn=learn)
        elif part.type == MISSING:
            # What could not be made is not there.
            continue
        elif part.type in PLACE_KINDS:
            if template.user_text or message.role != "user":
                yield Piece("places", part, learn=learn)
        else:
            raise ConfigError(
                f"part type {part.type!r} in a conversation for a model that answers in text",
                fix="use a model with an output head for it",
            )


def _literal(text: str, template: ChatTemplate, *, learn: bool) -> Iterator[Piece]:
    """Split template text at its control tokens."""
    while text:
        hits = [(text.find(t), t) for t in template.control if t in text]
        if not hits:
            yield Piece("text", text, learn)
            return
        position, token = min(hits)
        if position:
            yield Piece("text", text[:position], learn)
        yield Piece("control", token, learn)
        text = text[position + len(token) :]

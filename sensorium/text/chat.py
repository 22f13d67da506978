"""Chat templates as data: how messages become text, and which text is learned.

Foreign Jinja templates are never executed; a template here is a handful of strings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sensorium.core.errors import ConfigError
from sensorium.core.naming import did_you_mean
from sensorium.core.sample import PLACE_KINDS, Message, Part
from sensorium.text.templates import EOS, TEMPLATES, ChatTemplate, TemplateName
from sensorium.text.tokenizer import Tokenizer

__all__ = ["EOS", "TEMPLATES", "ChatTemplate", "Piece", "TemplateName", "choose_template", "control_id", "render",
           "stop_ids"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of template output: plain text, a control token, a medium, or places in a picture."""

    kind: Literal["text", "control", "media", "places"]
    value: str | Part
    learn: bool


def choose_template(name: str, tokenizer: Tokenizer) -> ChatTemplate:
    """The template called `name`; `auto` picks by the tokenizer's control tokens.

    Raises:
        ConfigError: the name is unknown or the tokenizer lacks its control tokens.
    """
    if name == "auto":
        if tokenizer.has("<|im_start|>"):
            name = "chatml"
        elif tokenizer.has("<|start_header_id|>"):
            name = "llama3"
        else:
            name = "plain"
    if name not in TEMPLATES:
        raise ConfigError(f"unknown chat template {name!r}", fix=did_you_mean(name, TEMPLATES))
    template = TEMPLATES[name]
    for token in template.control:
        control_id(token, tokenizer)
    return template


def control_id(token: str, tokenizer: Tokenizer) -> int:
    """Id of a control token of a template."""
    return tokenizer.eos_id if token == EOS else tokenizer.special_id(token)


def stop_ids(template: ChatTemplate, tokenizer: Tokenizer) -> set[int]:
    """Ids that end an answer: end of text, and the token that closes a turn."""
    closing = {t for t in template.control if t in template.after["assistant"]}
    return {tokenizer.eos_id} | {control_id(token, tokenizer) for token in closing}


def render(
    messages: Sequence[Message], template: ChatTemplate, *, answer_next: bool = False
) -> Iterator[Piece]:
    """The pieces of a conversation; assistant text and its closing are learned.

    Args:
        answer_next: end with the opening of an assistant turn, for generation.
    """
    if template.default_system and (not messages or messages[0].role != "system"):
        yield from _literal(template.before["system"], template, learn=False)
        yield Piece("text", template.default_system, learn=False)
        yield from _literal(template.after["system"], template, learn=False)
    number = 0
    for message in messages:
        learn = message.role == "assistant"
        yield from _literal(template.before[message.role], template, learn=False)
        if learn and template.answer_prefix:
            yield Piece("text", template.answer_prefix, learn=True)
        yield from _content(message, template, learn, number)
        number += sum(part.is_media for part in message.content)
        yield from _literal(template.after[message.role], template, learn=learn)
    if answer_next:
        yield from _literal(template.before["assistant"], template, learn=False)


def _content(message: Message, template: ChatTemplate, learn: bool, number: int) -> Iterator[Piece]:
    """The pieces of what a message says; `number` media stand in front of it."""
    for part in message.content:
        if part.is_media:
            number += 1
            before = template.media_before.replace("{n}", str(number))
            yield from _literal(before, template, learn=False)
            yield Piece("media", part, learn=False)
            yield from _literal(template.media_after, template, learn=False)
        elif part.type == "text":
            if part.value and (template.user_text or message.role != "user"):
                yield Piece("text", part.value, learn=learn)
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

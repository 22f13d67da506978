"""Media that an answer holds -> the signal tokens that stand for them, and what is known of each for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sensorium.core.batch import Wanted
from sensorium.core.errors import ConfigError
from sensorium.core.parts import HandShape
from sensorium.core.sample import Message, Part, Sample
from sensorium.text.tokenizer import Tokenizer


def signal_ids(hands: Mapping[str, HandShape], tokenizer: Tokenizer) -> dict[str, tuple[int, ...]]:
    """The tokens of each kind of medium.

    Raises:
        ConfigError: the tokenizer has no such token, or two kinds share one.
    """
    found: dict[str, tuple[int, ...]] = {}
    owners: dict[int, str] = {}
    for kind, hand in hands.items():
        for token in hand.signals:
            if not tokenizer.has(token):
                raise ConfigError(f"the tokenizer has no token {token!r}", where=f"model.hands.{kind}.signals",
                                  fix="add it to backbone.added_tokens, and raise vocab_size in its arch by as much")  # fmt: skip
            if owners.setdefault(tokenizer.special_id(token), kind) != kind:
                raise ConfigError(f"signal {token!r} of two kinds of media", where=f"model.hands.{kind}.signals")
        found[kind] = tuple(tokenizer.special_id(token) for token in hand.signals)
    return found


def media_seen(sample: Sample, hands: Mapping[str, HandShape]) -> list[tuple[Message, Part]]:
    """The media that the model looks at, with their messages: those of its answers only where it reads what it makes."""
    return [(message, part) for message in sample.messages for part in message.content
            if part.is_media and (not is_made(message, part, hands) or hands[part.type].feeds_back)]  # fmt: skip


def is_made(message: Message, part: Part, hands: Mapping[str, HandShape]) -> bool:
    """Whether the model makes this medium."""
    return message.role == "assistant" and part.type in hands


def wanted_of(part: Part, messages: Sequence[Message], start: int, sample: Sample) -> Wanted:
    """What is known of a medium in an answer.

    Args:
        messages: the conversation that holds it.
    """
    place = next(i for i, message in enumerate(messages) if any(one is part for one in message.content))
    said = [message.text.strip() for message in messages[max(0, place - 1) : place + 1]]
    caption = said[-1] or said[0]
    return Wanted(part.type, start, caption, part.value, sample.root)

"""Media that an answer holds -> the signal tokens that stand for them, and what is known of each for training."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sensorium.core.batch import Wanted
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.hands import HandShape
from sensorium.core.sample import Message, Part, Sample
from sensorium.text.tokenizer import Tokenizer


def signal_ids(hands: Mapping[str, HandShape], tokenizer: Tokenizer) -> dict[str, tuple[int, ...]]:
    """The tokens of each kind of medium; a voice has none.

    Raises:
        ConfigError: the tokenizer has no such token, or two kinds share one.
    """
    found: dict[str, tuple[int, ...]] = {}
    owners: dict[int, str] = {}
    for kind, hand in hands.items():
        if not hand.signals:
            continue
        for token in hand.signals:
            if not tokenizer.has(token):
                raise ConfigError(f"the tokenizer has no token {token!r}", where=f"model.hands.{kind}.signals",
                                  fix="add it to backbone.added_tokens, and raise vocab_size in its arch by as much")  # fmt: skip
        found[kind] = tuple(tokenizer.special_id(token) for token in hand.signals)
        for token in own_signals(found[kind], tokenizer.added):
            if owners.setdefault(token, kind) != kind:
                name = hand.signals[found[kind].index(token)]
                raise ConfigError(f"signal {name!r} of two kinds of media", where=f"model.hands.{kind}.signals")
    return found


def own_signals(ids: tuple[int, ...], added: Collection[int]) -> list[int]:
    """Those of a medium's tokens that stand for it wherever they are: the first, the last, and what was added to the vocabulary. The
    tokenizer's own in between (NExT-GPT 1.5's spaces) mean nothing by themselves."""
    return [token for i, token in enumerate(ids) if i in (0, len(ids) - 1) or (token in added and ids.count(token) == 1)]


def media_seen(sample: Sample, made: Mapping[str, bool]) -> list[tuple[Message, Part]]:
    """The media that the model looks at, with their messages: those of its answers only where it looks at what it makes."""
    return [(message, part) for message in sample.messages for part in message.content
            if part.is_media and (not is_made(message, part, made) or made[part.type])]  # fmt: skip


def is_made(message: Message, part: Part, made: Collection[str]) -> bool:
    """Whether the model makes this medium, whose kind is then among those `made`."""
    return message.role == "assistant" and part.type in made


def wanted_of(part: Part, sample: Sample, place: tuple[int, int]) -> Wanted:
    """What is known of a medium in an answer.

    Args:
        sample: the conversation that holds it.
        place: its first token, and how many stand for it.
    """
    return Wanted(part.type, *place, caption_of(part, sample), part.value, sample.root)


def caption_of(part: Part, sample: Sample) -> str:
    """The text that a medium in an answer goes with: its prompt or, where it has none, the text of its message or of the
    one before."""
    if part.prompt is not None:
        return part.prompt.strip()
    messages = sample.messages
    place = next(i for i, message in enumerate(messages) if any(one is part for one in message.content))
    said = [message.text.strip() for message in messages[max(0, place - 1) : place + 1]]
    return said[-1] or said[0]


def made_ids(part: Part, sample: Sample, hand: HandShape, tokenizer: Tokenizer) -> list[int]:
    """The tokens that stand for a medium in an answer: its signals, or what its generator is told between two.

    Raises:
        DataError: nothing is known that the generator could be told.
    """
    ids = [tokenizer.special_id(token) for token in hand.signals]
    if not hand.told:
        return ids
    caption = caption_of(part, sample)
    if not caption:
        raise DataError(f"an answer with {part.type} that nothing is said of", expected='a "prompt" beside it, or text in its message')
    return [ids[0], *tokenizer.encode(caption), ids[1]]

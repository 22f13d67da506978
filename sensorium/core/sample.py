"""The Sample: one conversation, the one data shape of the whole toolkit.

On disk a Sample is JSON; a part's key equals its type, and media are relative paths:

    {"id": "cat-1", "messages": [
        {"role": "user", "content": [{"type": "image", "image": "cat.png"},
                                     {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}]}

Boxes and points are parts too, written into the text by the model's own format: pixels of the picture in front, or of the n-th, with a phrase:

    {"type": "boxes", "boxes": [[x0, y0, x1, y1], ...]}, {"type": "points2d", "points2d": [[x, y]]},
    {"type": "boxes", "boxes": {"places": [[x0, y0, x1, y1]], "phrase": "a cat", "picture": 1}}

A mask says which pixels of such a picture are meant, as COCO's run lengths (`core/masks.py`) or as a PNG of the picture's size:

    {"type": "mask", "mask": {"size": [height, width], "counts": "...", "phrase": "a cat", "picture": 1}}
    {"type": "mask", "mask": "cat-mask.png"}, {"type": "mask", "mask": {"png": "cat-mask.png", "phrase": "a cat"}}

A medium in an answer may have a prompt, which is what a generator that is told by text is told; what could not be made
is a part that says so:

    {"type": "image", "image": "ball.png", "prompt": "a red ball"}
    {"type": "image", "image": "star.png", "source": {"file": "stars/7.png", "similarity": 0.83}}      one that was found
    {"type": "audio", "audio": "said.wav", "prompt": "It is on the left.", "speech": true}             the answer, said
    {"type": "missing", "missing": {"kind": "image", "error": "it failed after step 3 of 50 ..."}, "prompt": "a red ball"}

A message's `content` may also be a plain string. In memory a medium may be a path, bytes, a PIL image or an array (of sound a
`core.hands.Made`); a video may be a list of its frames, on disk too. `"separate_turns": true` beside `messages` says that each question is
asked afresh: it sees the system message and the media, no other pair.

Instead of a last assistant message, `answers` may hold several answers to the last question: what each annotator said,
`["red", "red", "crimson"]`, or texts with weights, `[{"text": "red", "weight": 0.7}, ...]`. In training the loss of each is multiplied by
its weight, of annotators' answers the share who gave it (BLIP's VQA); whoever else reads the Sample sees the heaviest as its last message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from sensorium.core.config import as_mapping
from sensorium.core.errors import DataError
from sensorium.core.naming import did_you_mean
from sensorium.core.part import ANSWER_KINDS as ANSWER_KINDS
from sensorium.core.part import LOCATED_KINDS as LOCATED_KINDS
from sensorium.core.part import MEDIA_KINDS as MEDIA_KINDS
from sensorium.core.part import MISSING as MISSING
from sensorium.core.part import PART_TYPES as PART_TYPES
from sensorium.core.part import PLACE_KINDS as PLACE_KINDS
from sensorium.core.part import Part, as_sequence, check_text, read_part, what_is

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = ("system", "user", "assistant")
KEYS: tuple[str, ...] = ("id", "messages", "meta", "separate_turns", "answers")


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
class WeighedAnswer:
    """One of several answers to a question."""

    text: str
    weight: float
    """What the loss of its tokens is multiplied by."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation with its identity and whatever is known about it."""

    messages: tuple[Message, ...]
    id: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    root: Path | None = None
    """Folder that relative media paths start from; not part of the JSON."""
    separate_turns: bool = False
    """Each pair of question and answer stands alone behind the system message and the media."""
    answers: tuple[WeighedAnswer, ...] = ()
    """Of a question with several, all; the heaviest of them is the last message."""

    def media(self) -> Iterator[Part]:
        """The media parts in reading order, without an answer's own words as sound."""
        for message in self.messages:
            for part in message.content:
                if part.is_media and not part.speech:
                    yield part

    @property
    def silent(self) -> Sample:
        """The conversation without its answers' own words as sound; itself, where there are none."""
        if not any(part.speech for message in self.messages for part in message.content):
            return self
        kept = ((m.role, tuple(part for part in m.content if not part.speech)) for m in self.messages)
        return replace(self, messages=tuple(Message(role, content or (Part("text", ""),)) for role, content in kept))

    def conversations(self, *, answer_next: bool = False) -> list[tuple[Message, ...]]:
        """What is asked at once: the whole conversation, or each pair of separate turns.

        Args:
            answer_next: of separate turns, only the last question, without its answer.

        Raises:
            DataError: separate turns that are not pairs, or media elsewhere than in front.
        """
        if not self.separate_turns:
            return [self.messages]
        system = tuple(m for m in self.messages[:1] if m.role == "system")
        turns = self.messages[len(system) :]
        for i, message in enumerate(turns):
            role = ("user", "assistant")[i % 2]
            if message.role != role:
                raise DataError(
                    f"separate turns with role {message.role!r}",
                    expected=f"{role!r}: a system message or none, then pairs of user and assistant",
                    where=f"message {len(system) + i + 1}",
                )
        if not turns or (len(turns) % 2 and not answer_next):
            raise DataError(
                "separate turns that end without an answer",
                expected="pairs of user and assistant",
                where=f"message {len(self.messages)}",
                fix="leave the last question out or answer it",
            )
        media = tuple(takewhile(lambda part: part.is_media, turns[0].content))
        if sum(1 for _ in self.media()) > len(media):
            raise DataError(
                "separate turns with a medium behind text, in a later message or in the system's",
                expected="media only at the beginning of the first user message",
                fix="put all media there, or leave separate_turns out",
            )
        users = [turns[0], *(Message("user", (*media, *m.content)) for m in turns[2::2])]
        if answer_next:
            return [(*system, users[-1])]
        return [(*system, *pair) for pair in zip(users, turns[1::2], strict=True)]

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"id": self.id} if self.id else {}
        told = self.messages[:-1] if self.answers else self.messages
        value["messages"] = [message.to_json() for message in told]
        if self.answers:
            value["answers"] = [{"text": a.text, "weight": a.weight} for a in self.answers]
        if self.meta:
            value["meta"] = dict(self.meta)
        if self.separate_turns:
            value["separate_turns"] = True
        return value


def parse_sample(value: Any, *, where: str = "sample", root: Path | None = None) -> Sample:
    """Read a Sample from its JSON form (or its in-memory form with live media).

    Raises:
        DataError: naming the place and the nearest legal name.
    """
    row = as_mapping(value)
    if row is None:
        raise DataError(f"row is {what_is(value)}", expected="an object with 'messages'", where=where)
    extra = {str(key) for key in row} - set(KEYS)
    if extra:
        key = sorted(extra)[0]
        raise DataError(f"unknown key {key!r}", where=where, fix=did_you_mean(key, KEYS))
    if "messages" not in row:
        raise DataError("no 'messages'", expected="a list of messages", where=where)
    meta = as_mapping(row.get("meta", {}))
    if meta is None:
        raise DataError(f"'meta' is {what_is(row['meta'])}", expected="an object", where=where)
    separate = row.get("separate_turns", False)
    if not isinstance(separate, bool):
        raise DataError(f"'separate_turns' is {what_is(separate)}", expected="true or false", where=where)
    messages = parse_messages(row["messages"], where=where)
    answers: tuple[WeighedAnswer, ...] = ()
    if "answers" in row:
        if messages[-1].role != "user" or separate:
            raise DataError("'answers' of a conversation that does not end with a question, or of separate turns",
                            expected="a last message with role 'user'", where=where)  # fmt: skip
        answers = _parse_answers(row["answers"], where)
        heaviest = max(answers, key=lambda answer: answer.weight)
        messages += (Message("assistant", (Part("text", heaviest.text),)),)
    return Sample(messages, str(row.get("id", "")), dict(meta), root, separate, answers)


def _parse_answers(value: Any, where: str) -> tuple[WeighedAnswer, ...]:
    """Each answer once, in the order in which they come."""
    found = as_sequence(value)
    if not found:
        raise DataError(f"'answers' is {what_is(value)}", expected="a list of texts, or of texts with weights", where=where)
    weights: dict[str, float] = {}
    said = all(isinstance(one, str) for one in found)
    for one in found:
        entry = as_mapping({"text": one, "weight": 1 / len(found)} if said else one)
        if entry is None or set(entry) != {"text", "weight"} or not isinstance(entry["text"], str):
            raise DataError(f"answer {one!r}", where=where,
                            expected='texts alone, or {"text": TEXT, "weight": NUMBER} for all')  # fmt: skip
        weight, text = entry["weight"], entry["text"]
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise DataError(f"answer {text!r} with weight {weight!r}", expected="a number above 0", where=where)
        check_text(text, where)
        weights[text] = weights.get(text, 0.0) + weight
    return tuple(WeighedAnswer(text, weight) for text, weight in weights.items())


def parse_messages(value: Any, *, where: str = "messages") -> tuple[Message, ...]:
    """Read the messages of a conversation.

    Raises:
        DataError: the conversation is empty or a message, role or part is malformed.
    """
    turns = as_sequence(value)
    if turns is None:
        raise DataError(f"'messages' is {what_is(value)}", expected="a list", where=where)
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
            f"message is {what_is(value)}", expected="an object with 'role' and 'content'", where=where
        )
    role = turn["role"]
    if role not in ROLES:
        raise DataError(f"unknown role {role!r}", where=where, fix=did_you_mean(str(role), ROLES))
    content = turn["content"]
    if isinstance(content, str):
        check_text(content, where)
        return Message(role=role, content=(Part("text", content),))
    parts = as_sequence(content)
    if not parts:
        raise DataError(
            f"'content' is {what_is(content)}", expected="text or a list of parts", where=where
        )
    return Message(role=role, content=tuple(read_part(part, where) for part in parts))

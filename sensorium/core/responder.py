"""Anything that answers requests with media: an engine, an endpoint, a constant.

Evaluation and agents see only this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sensorium.core.hands import MadeKind
from sensorium.core.sample import Message, Part


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation that wants an answer."""

    id: str
    messages: tuple[Message, ...]
    max_tokens: int = 32
    root: Path | None = None
    choices: tuple[str, ...] = ()
    """All answers that could be right, for who cannot write but rank; empty: too many to list."""
    pictures: tuple[Any, ...] = ()
    """Pictures to find the described one among; the answer is their numbers from 0, the fittest first."""
    seed: int = 0
    """Added to the seed of the media that an answer makes."""
    draws: bool = False
    """It asks for a picture: a model that writes pictures as tokens begins with one, which has room beside `max_tokens`."""
    makes: frozenset[MadeKind] | None = None
    """The kinds of media that are made where the answer asks for them; None: all. Others are left out of its parts; its text is the same."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request."""

    id: str
    text: str
    tokens: int = 0
    parts: tuple[Part, ...] = ()
    """All of it in order, with the media that were made; empty: it is its text."""


class Responder(Protocol):
    """Answers requests, one answer each, in the same order."""

    def respond(self, requests: Sequence[Request]) -> Iterator[Answer]: ...


@dataclass(frozen=True, slots=True)
class Redrawn:
    """Pictures through what a responder draws with and back."""

    pictures: list[Any]
    ids: list[list[int]]
    """Of each picture the codes that it became, in reading order; empty: it draws by no codebook."""
    codes: int
    """Entries of the codebook."""


@runtime_checkable
class Redraws(Protocol):
    """A responder that draws, and can say how well pictures could come out at best."""

    def redraw(self, pictures: Sequence[Any]) -> Redrawn | None:
        """Pictures through what it draws with and back; None: it has nothing of the kind."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same answer: a baseline, and a test double."""

    text: str

    def respond(self, requests: Sequence[Request]) -> Iterator[Answer]:
        for request in requests:
            yield Answer(request.id, self.text)


@dataclass(frozen=True, slots=True)
class Blind:
    """The same responder without its media: what language alone can do."""

    inner: Responder

    def respond(self, requests: Sequence[Request]) -> Iterator[Answer]:
        yield from self.inner.respond([without_media(r) for r in requests])


def without_media(request: Request) -> Request:
    """The request with every medium taken out."""
    messages = tuple(
        Message(m.role, tuple(p for p in m.content if not p.is_media) or (Part("text", ""),))
        for m in request.messages
    )
    return Request(request.id, messages, request.max_tokens, None, request.choices, seed=request.seed, draws=request.draws, makes=request.makes)

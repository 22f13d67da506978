"""A language model that answers about pictures by what experts say of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sensorium.core.responder import Answer, Request, Responder
from sensorium.experts.base import Panel


@dataclass(frozen=True, slots=True)
class Told:
    """Any Responder, asked without pictures: evaluation and agents see no difference."""

    inner: Responder
    panel: Panel

    def respond(self, requests: Sequence[Request]) -> Iterator[Answer]:
        # What else is asked (choices, a seed) stays.
        yield from self.inner.respond([replace(r, messages=self.panel.told(r.messages, r.root), root=None, pictures=()) for r in requests])

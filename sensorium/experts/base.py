"""What every expert answers, and how the words of several take the place of a picture.

The oldest way to give a language model eyes (the survey's expert models; VideoChat-Text, arXiv:2305.06355;
MM-REACT, arXiv:2303.11381): nothing is trained, and what no expert says is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import SerializeAsAny

from sensorium.core.config import Config, kinds
from sensorium.core.errors import ConfigError
from sensorium.core.sample import PLACE_KINDS, Message, Part
from sensorium.experts import EXPERTS
from sensorium.media.image import Image, load_image

Look = Callable[[Image], str]
"""A picture -> what is to be said about it; nothing where there is nothing to say."""


class ExpertConfig(Config):
    """An expert as a config node."""

    kind: str
    label: str
    """What stands in front of its words: `Caption`, `Text in it`."""

    def build(self) -> Look:
        """Make the expert ready.

        Raises:
            MissingDependencyError: it needs a package that is not installed.
            WeightsError: its model is not there.
        """
        raise TypeError(f"{type(self).__name__} does not define build()")


AnyExpert = Annotated[SerializeAsAny[ExpertConfig], kinds(EXPERTS, ExpertConfig)]


class Panel:
    """Several experts, each of whom sees a picture once."""

    def __init__(self, experts: Sequence[tuple[str, Look]]) -> None:
        """Take experts and what stands in front of their words.

        Raises:
            ConfigError: there are none.
        """
        if not experts:
            raise ConfigError("no expert", expected="at least one", fix=f"name some of {', '.join(EXPERTS)}")
        self._experts = tuple(experts)
        self._said: dict[str, str] = {}

    @classmethod
    def of(cls, configs: Sequence[ExpertConfig]) -> Panel:
        """The experts of these configs."""
        return cls([(config.label, config.build()) for config in configs])

    def say(self, image: Image) -> str:
        """What they say, one line each; who has nothing to say is left out."""
        digest = image.digest()
        if digest not in self._said:
            lines = [f"{label}: {words}" for label, look in self._experts if (words := look(image).strip())]
            self._said[digest] = "\n".join(lines)
        return self._said[digest]

    def told(self, messages: Sequence[Message], root: Path | None) -> tuple[Message, ...]:
        """The conversation with words in place of its pictures, numbered from 1.

        Raises:
            ConfigError: a medium that is no picture, or places in one, which words cannot hold.
            MediaError: a picture does not decode.
        """
        number, out = 0, list[Message]()
        for message in messages:
            parts: list[Part] = []
            for part in message.content:
                if part.type in PLACE_KINDS or (part.is_media and part.type != "image"):
                    raise ConfigError(f"a part of type {part.type!r} among what experts are asked about",
                                      expected="text and image", fix="leave such rows out")  # fmt: skip
                if part.is_media:
                    number += 1
                    words = self.say(load_image(part.value, root=root))
                    part = Part("text", f"[Picture {number}]\n{words}\n" if words else f"[Picture {number}]\n")
                parts.append(part)
            out.append(Message(message.role, tuple(parts)))
        return tuple(out)

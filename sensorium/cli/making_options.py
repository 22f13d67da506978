"""How `ask --save` makes media: its options, and which of them change nothing for a model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from sensorium.core.errors import ConfigError
from sensorium.core.hands import Making

if TYPE_CHECKING:
    from sensorium.model.config import ModelConfig

LONGEST_PX = 8192
"""Side of what is asked for; a slip of the finger is not to fill the memory."""


@dataclass(frozen=True, slots=True)
class MakingOptions:
    """What is asked for; None: nothing is said."""

    steps: int | None = None
    """Of a generator; else its own number, 50."""
    seed: int | None = None
    """Else 0."""
    guidance: float | None = None
    """Else 7.5, or of pictures that are written as tokens the model's own."""
    size: str | None = None
    """`WIDTHxHEIGHT`, or one side of a square, in pixels."""
    negative: str | None = None
    """What is led away from, in words."""

    def said(self) -> list[str]:
        """The names of those that something is said of."""
        return [one.name for one in fields(self) if getattr(self, one.name) is not None]

    def check(self) -> None:
        """Whether what is said means anything; called before weights are read.

        Raises:
            ConfigError: `size` is no size, or `guidance` no number.
        """
        if self.size is not None:
            read_size(self.size)
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise ConfigError(f"{self.guidance}", expected="a number, 0 or more", where="--guidance")

    def making(self, config: ModelConfig, plain: Making) -> Making:
        """How a model makes what is asked for.

        Args:
            plain: what is not asked for here.

        Raises:
            ConfigError: `size` is no size.
        """
        given: dict[str, Any] = {name: getattr(self, name) for name in self.said()}
        if self.size is not None:
            given["size"] = read_size(self.size)
        making = replace(plain, **given)
        words = config.picture_words
        if words is None or "guidance" in words.tokenizer.heeds:
            return making
        led = {"guidance": self.guidance, "negative": self.negative}
        return replace(making, drawing=words.drawing.model_copy(update={key: value for key, value in led.items() if value is not None}))

    def idle(self, config: ModelConfig) -> Iterator[str]:
        """A line for each option that changes nothing for this model, or less than it says."""
        from sensorium.model.generators import all_generators
        from sensorium.model.heeding import heeded, makers

        made, heeds = makers(config), heeded(config)
        who = "this model makes no media" if not made else f"nothing here heeds it ({', '.join(f'{kind}: {one}' for kind, one in made.items())})"
        for name in self.said():
            if name not in heeds:
                yield f"--{name} changes nothing: {who}"
        for generator in all_generators(config).values():
            strongest = getattr(generator, "strongest", None)
            if self.guidance is not None and strongest is not None and self.guidance > strongest:
                yield f"--guidance {self.guidance:g} is taken as {strongest:g}, the strongest of generator {generator.kind}"
        if self.negative is not None and "negative" in heeds and self._guided(config) == 1:
            yield "--negative changes nothing: with guidance 1 nothing is led away from"

    def _guided(self, config: ModelConfig) -> float:
        words = config.picture_words
        own = Making().guidance if words is None else words.drawing.guidance
        return own if self.guidance is None else self.guidance


def read_size(text: str) -> tuple[int, int]:
    """Height and width of `WIDTHxHEIGHT` or of one side, in pixels.

    Raises:
        ConfigError: it is neither.
    """
    found = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text.strip().lower())
    sides = [] if found is None else [int(side) for side in (found[2] or found[1], found[1])]
    if not sides or not all(1 <= side <= LONGEST_PX for side in sides):
        raise ConfigError(f"{text!r}", expected=f"pixels, WIDTHxHEIGHT or one side of a square, 1 to {LONGEST_PX}", where="--size",
                          fix="--size 512x384, say")  # fmt: skip
    return sides[0], sides[1]

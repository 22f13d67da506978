"""What all speakers share: a text goes in, sound comes out, and nothing is steered by vectors.

A speaker stands in the table of generators so that recipes name it as any other, but it has no condition: `condition` and
`generate` refuse, and `speak` is what is called (`core.hands.Speaks`). Nothing of it learns with the LLM.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.core.errors import ConfigError, GenerationError, SensoriumError
from sensorium.core.hands import (
    CancelledError,
    ConditionShape,
    GeneratorConfig,
    Made,
    MadeKind,
    Making,
)


class SpeechConfig(GeneratorConfig):
    """A voice."""

    @property
    def makes(self) -> MadeKind:
        return "audio"

    @property
    def told_by_text(self) -> bool:
        return True

    @property
    def condition(self) -> ConditionShape:
        raise ConfigError("speech is told by text and takes no condition", where=f"generator {self.kind}")


class Speaker:
    """Speaks one text at a time."""

    def __init__(self, kind: str, rate_hz: int) -> None:
        self.kind = kind
        self.rate_hz = rate_hz
        self._lock = Lock()

    def speak(self, text: str, making: Making = Making()) -> Made:
        """The text as sound. Steps, guidance and size mean nothing to speech; seconds follow from the text.

        Raises:
            ConfigError: a text without words, or a length or size was asked for.
            CancelledError: somebody asked to stop.
            GenerationError: it failed, and nothing was made.
        """
        where = f"generator {self.kind}"
        if not any(letter.isalnum() for letter in text):
            raise ConfigError(f"nothing to say in {text[:40]!r}", expected="words", where=where)
        if making.seconds is not None or making.size is not None:
            raise ConfigError("a length or size of speech", expected="none: its text decides", where=where)
        with self._lock, failing(where):
            samples = self.say(text, making)
        if samples.size == 0 or not np.isfinite(samples).all():
            raise GenerationError("it made no sound, or values that are not finite", where=where)
        return Made("audio", samples.astype(np.float32).clip(-1.0, 1.0), sample_rate_hz=self.rate_hz)

    def say(self, text: str, making: Making) -> np.ndarray[Any, Any]:
        """The samples (N,), -1..1."""
        raise TypeError(f"{type(self).__name__} does not define say()")

    def generate(self, condition_BLC: Tensor, *, negative_BLC: Tensor | None = None, making: Making = Making()) -> list[Made]:
        """Refused.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("speech is told by text and takes no condition", where=f"generator {self.kind}", fix="call speak")


@contextmanager
def failing(where: str) -> Iterator[None]:
    """What fails inside becomes an error of ours."""
    try:
        yield
    except (CancelledError, SensoriumError):
        raise
    except Exception as error:
        raise GenerationError(f"it failed ({type(error).__name__}: {str(error)[:300]}); nothing was made", where=where) from error


@contextmanager
def seeded(seed: int, module: torch.nn.Module) -> Iterator[None]:
    """Models that draw from torch's own random state begin with the seed, and leave that state as it was."""
    device = next(module.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(seed)
        yield


def count(done: int, total: int, making: Making, kind: str) -> None:
    """Tell of a step, and stop where somebody asked to.

    Raises:
        CancelledError: somebody did.
    """
    if making.progress is not None:
        making.progress(done, total)
    if making.cancelled is not None and making.cancelled():
        raise CancelledError(f"generator {kind}: stopped after step {done} of {total}")

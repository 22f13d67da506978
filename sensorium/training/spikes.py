"""Loss spikes: go back to the last checkpoint, and leave out the batches that spiked.

A run with spikes is as reproducible as one without. Batches come in an order that the data and the seed fix, so a
step's batches are known by a number (its *draw*); the numbers to leave out, how often the stage went back, and the
values that the median is taken of are in every checkpoint, so that a resumed run does as the whole one did.
Leaving out batches that spiked: PaLM, arXiv:2204.02311, section 5.1.
"""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from pydantic import Field

from sensorium.core.config import Config
from sensorium.core.errors import NumericsError


class SpikeConfig(Config):
    """What counts as a spike, and what is done about it."""

    factor: float | None = Field(default=3.0, gt=1)
    """A loss above so many times the running median; None: the loss is not watched."""
    grad_factor: float | None = Field(default=None, gt=1)
    """The same for the gradient's norm before clipping."""
    window: int = Field(default=50, ge=2)
    """Steps that the median is taken of; none can spike before there are so many."""
    rewind: bool = True
    """Go back and leave the batches out; off: the log names the spike, and training goes on."""
    most: int = Field(default=3, ge=1)
    """How often a stage may go back before it stops with an error."""


class RewindError(Exception):
    """A step spiked: the stage goes on from the last checkpoint. Never leaves the trainer."""


class SpikeWatch:
    """The spikes of one stage, through all its rewinds."""

    def __init__(self, config: SpikeConfig | None, accumulate: int, stage: str) -> None:
        self.config = config
        self._accumulate = accumulate
        self._stage = stage
        self._recent: dict[str, list[float]] = {"loss": [], "grad_norm": []}
        self._skip: list[int] = []
        self._draw = 0
        self._rewinds = 0
        self._line: dict[str, Any] = {}

    @property
    def rewinds(self) -> bool:
        """Whether this stage may need a checkpoint to go back to."""
        return self.config is not None and self.config.rewind

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        if self.config is None:
            return {}
        return {"draw": self._draw, "skip": list(self._skip), "rewinds": self._rewinds,
                "recent": {key: list(values) for key, values in self._recent.items()}}  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; what this process has already learnt of spikes stays known."""
        if self.config is None:
            return
        self._draw = state.get("draw", 0)
        self._recent = {key: list(state.get("recent", {}).get(key, [])) for key in self._recent}
        self._skip = sorted({*self._skip, *state.get("skip", [])})
        self._rewinds = max(self._rewinds, state.get("rewinds", 0))

    def pass_over(self, stream: Any, state: Any) -> tuple[Any, int, list[str]]:
        """Draw the batches to be left out, if they are next.

        Returns:
            The mixture's state before the step that runs now; how many samples were left out, and which rows of
            theirs were bad.
        """
        left_out, problems = 0, list[str]()
        while self._draw in self._skip:
            for _ in range(self._accumulate):
                loaded = next(stream)
                state = loaded.state
                problems += loaded.problems
                left_out += loaded.samples
            self._draw += 1
        self._draw += 1
        return state, left_out, problems

    def add_to(self, line: dict[str, Any]) -> None:
        """Put what happened since the last step into the log's line of this one."""
        line |= self._line
        self._line = {}

    def look(self, line: dict[str, Any]) -> None:
        """Judge a step by its line in the log.

        Raises:
            RewindError: it spiked, and the stage goes back.
            NumericsError: it spiked, and the stage went back often enough.
        """
        if self.config is None:
            return
        found = self._spike(self.config, line)
        if found is None:
            for key, values in self._recent.items():
                if line[key] is not None and math.isfinite(line[key]):
                    values.append(line[key])
                    del values[: -self.config.window]
            return
        if not self.config.rewind:
            line["spike"] = found
            return
        if self._rewinds >= self.config.most:
            raise NumericsError(
                f"{found} in step {line['step']}, after {self._rewinds} rewinds",
                expected=f"at most {self.config.most}",
                where=f"stage {self._stage}",
                fix="lower the learning rate or clip_norm, or look at the data; the last checkpoint is whole",
            )
        self._rewinds += 1
        self._skip.append(self._draw - 1)
        self._line = {"rewound": {"from_step": line["step"], "why": found, "times": self._rewinds}}
        raise RewindError

    def _spike(self, config: SpikeConfig, line: dict[str, Any]) -> str | None:
        for key, factor in (("loss", config.factor), ("grad_norm", config.grad_factor)):
            recent, value = self._recent[key], line[key]
            if factor is None or value is None or len(recent) < config.window:
                continue
            usual = median(recent)
            if value > factor * usual:
                return f"{key} {value:.4g} is above {factor:g} times the median {usual:.4g}"
        return None

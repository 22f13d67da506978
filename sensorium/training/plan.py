"""What a stage will do, as it is printed before step one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sensorium.training.fitting import Fit
from sensorium.training.optimiser import Group
from sensorium.training.precision import Chosen


@dataclass(slots=True)
class StagePlan:
    """What a stage will do."""

    name: str
    number_format: Chosen
    steps: int
    rows: int
    parts: list[tuple[str, int, int]]
    tokens: int
    """In the probed batch."""
    samples: int
    fit: Fit
    """How each batch goes through the model, and what that needs."""
    available_mb: int | None
    """For this program, what it holds already included."""
    loss: float
    rates: list[tuple[str, list[float]]]
    """Of parts whose learning rate falls from layer to layer: all of their rates, from the input on."""
    groups: list[Group]
    """What learns alike: the optimiser's own groups."""
    halved: int = 0
    """Numbers of frozen layers that are in half precision while the stage lasts (`model/half_frozen.py`)."""
    compiled: int = 0
    """Modules of the LLM's layers that run compiled."""
    keeping: str = ""
    """Whether features of frozen encoders are kept, and why not."""
    not_recorded: str | None = None
    """Why layers are not recorded, although the stage asks for it; None: they are, or it does not ask."""

    @property
    def memory_mb(self) -> int:
        """At the peak of a step; see `memory.activation_bytes`."""
        return round(self.fit.needed / 2**20)

    @property
    def compiling(self) -> str:
        """What runs compiled, or why nothing does: a stage that asks for what cannot be is refused."""
        if self.compiled:
            return f"{self.compiled} parts of the LLM's layers compiled; the first step takes longer"
        return "compile is off: the stage does not ask for it; on one core it cost 8 % (docs/log.md)"

    @property
    def warning(self) -> str | None:
        """Why the stage may not fit."""
        if self.available_mb is None or self.memory_mb <= self.available_mb:
            return None
        return (f"stage {self.name} needs about {self.memory_mb:,} MB and {self.available_mb:,} MB "
                "are available: lower batch_size or max_length, or end other programs")  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.name,
            "steps": self.steps,
            "rows": self.rows,
            "precision": self.number_format.precision,
            "precision_why": self.number_format.why,
            "precision_warning": self.number_format.warning(self.name),
            "parts": [{"part": p, "parameters": n, "learning": k} for p, n, k in self.parts],
            "batch_tokens": self.tokens,
            "batch_samples": self.samples,
            "memory_mb": self.memory_mb,
            "memory_available_mb": self.available_mb,
            "passes": self.fit.passes,
            "rows_a_pass": self.fit.rows,
            "recompute": self.fit.recompute,
            "halved_parameters": self.halved,
            "copies_mb": round(self.fit.laid_out / 2**20),
            "compiled": self.compiled,
            "compiling": self.compiling,
            "keeping": self.keeping,
            "not_recorded": self.not_recorded,
            "warning": self.warning,
            "first_loss": self.loss,
            "layer_rates": dict(self.rates),
            "groups": [group.to_json() for group in self.groups],
        }

"""How a step is taken so that it fits into memory: in how many passes, and whether activations are kept.

Passes over some of a step's rows cost next to nothing and give the same sums; activations that are computed again in the
backward pass (arXiv:1604.06174) cost a third more. So rows are divided first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sensorium.training.config import Recompute

ROOM = 0.85
"""Of all memory. Not of what is free: a run that resumes must divide its steps as it did before."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How each batch of a stage goes through the model."""

    rows: int
    """In one forward and backward pass, at most."""
    passes: int
    """That a full batch takes."""
    recompute: bool
    """Whether the LLM's layers keep their inputs alone and run again in the backward pass."""
    needed: int
    """Bytes at the peak of a step, about."""
    why: str
    laid_out: int = 0
    """Bytes of `needed` that hold copies of frozen weights for faster products (`model/laid_out.py`)."""

    def with_copies(self, size: int, memory: int | None) -> Fit:
        """The same with copies of so many bytes, where they change nothing else."""
        if self.recompute or memory is None or self.needed + size > ROOM * memory:
            return self
        return replace(self, laid_out=size, needed=self.needed + size)

    def describe(self) -> str:
        """One line for the plan."""
        kept = "recomputed" if self.recompute else "kept"
        rows = "all rows" if self.passes == 1 else f"{self.rows} rows"
        copies = f"; {self.laid_out / 2**20:,.0f} MB of frozen weights laid out for their products" if self.laid_out else ""
        return f"{self.passes} x {rows} a batch, activations {kept} ({self.why}){copies}"


@dataclass(frozen=True, slots=True)
class Need:
    """What a step of all rows needs, in bytes."""

    fixed: int
    """Weights, gradients, the optimiser's state."""
    activations: int
    """Of all rows together."""
    layers: int
    """Of the LLM: recomputed, one layer's activations exist at a time."""
    inputs: int
    """Of all layers, which are kept even so."""

    def of(self, share: float, *, recompute: bool) -> int:
        """What a pass over a share of the rows needs."""
        kept = self.activations / max(1, self.layers) + self.inputs if recompute else self.activations
        return round(self.fixed + share * kept)


def choose_fit(
    need: Need, rows: int, memory: int | None, *, asked: Recompute, can_split: bool, can_recompute: bool
) -> Fit:
    """The cheapest way that fits; the leanest one where none does.

    Args:
        rows: of a batch.
        memory: all there is, in bytes; None: unknown.
        can_split: whether the objective is a sum over rows.
    """
    room = None if memory is None else ROOM * memory
    for recompute in (True,) if asked == "on" else (False, True):
        if recompute and not (can_recompute and asked != "off"):
            break
        for passes in range(1, rows + 1 if can_split else 2):
            each = -(-rows // passes)
            needed = need.of(each / rows, recompute=recompute)
            if room is None or needed <= room:
                return Fit(each, -(-rows // each), recompute, needed, _why(passes, recompute, asked, room))
    recompute = can_recompute and asked != "off"
    each = 1 if can_split else rows
    needed = need.of(each / rows, recompute=recompute)
    return Fit(each, -(-rows // each), recompute, needed, "more than this machine has, even so")


def _why(passes: int, recompute: bool, asked: Recompute, room: float | None) -> str:
    if recompute and asked == "on":
        return "as asked"
    if room is None:
        return "memory unknown"
    if passes == 1 and not recompute:
        return "fits"
    return f"more would need over {room / 2**30:.1f} GiB"

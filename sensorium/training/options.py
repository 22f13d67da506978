"""Where a run lives, how it reports, and what it starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sensorium.core.errors import ConfigError
from sensorium.model.multimodal import MultimodalModel
from sensorium.training.config import Recipe
from sensorium.training.distributed.ranks import ALONE, Ranks
from sensorium.training.plan import StagePlan


@dataclass(frozen=True, slots=True)
class TrainerOptions:
    """Where a run lives and how it reports."""

    folder: Path
    cache: Path
    resume: bool = False
    tensorboard: bool = False
    on_plan: Callable[[StagePlan], None] | None = None
    start: Callable[[MultimodalModel], set[str]] | None = None
    """Fills a built model from a trained one, and names the tensors that it changed."""
    ranks: Ranks = ALONE
    """Of several processes: this one and how many (`distributed/ranks.py`). They share the folder."""


def started(recipe: Recipe, model: MultimodalModel, options: TrainerOptions) -> set[str]:
    """Fill a built model from the one that its recipe starts from, if any.

    Returns:
        Names of the tensors that changed.

    Raises:
        ConfigError: the recipe starts from a model, and the options do not say how.
    """
    if recipe.start and options.start is None:
        raise ConfigError(
            f"the recipe starts from {recipe.start!r}, and nothing was given that reads it",
            where="TrainerOptions.start",
            fix="pass interop.start.start_from, as `sensorium train` does",
        )
    return options.start(model) if options.start else set()

"""What of a recipe a begun run is bound to."""

from __future__ import annotations

from typing import Any

from sensorium.core.errors import ConfigError
from sensorium.training.checkpoint import Checkpoint
from sensorium.training.config import Recipe


def stages_begun(saved: Checkpoint) -> int:
    """How many stages the run has entered."""
    return saved.stage + (1 if saved.step else 0)


def as_read_today(recipe: dict[str, Any], stages: int) -> dict[str, Any]:
    """A saved recipe up to a stage, with the defaults of options that it is too old to have."""
    saved = up_to(recipe, stages)
    try:
        return up_to(Recipe.from_dict({"name": "saved", **saved}).to_dict(), stages)
    except ConfigError:
        # It has what today's recipes have not; so no recipe of today is equal to it.
        return saved


def up_to(recipe: dict[str, Any], stages: int) -> dict[str, Any]:
    """What a run's state after so many stages depends on."""
    return {
        "model": recipe["model"],
        "seed": recipe.get("seed"),
        "stages": recipe["stages"][:stages],
    }

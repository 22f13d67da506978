"""MM1 at 7B and 30B (McKinzie et al., arXiv:2403.09611): other language models and rates, nothing else."""

from __future__ import annotations

from sensorium.recipes.mm1 import mm1
from sensorium.training.config import Recipe


def mm1_7b() -> Recipe:
    """With a language model of 7B."""
    return mm1("7b")


def mm1_30b() -> Recipe:
    """With a language model of 30B."""
    return mm1("30b")

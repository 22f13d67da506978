"""This process's place among those that `torchrun` started; without torch, so that the command line starts at once."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Which process this is; alone where nothing started it with others."""

    rank: int
    world_size: int
    local_rank: int
    """Among those of this machine: the number of its GPU."""
    local_world_size: int
    starts: int
    """How often `torchrun` started all of them again."""

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0


def place() -> Place:
    """What the environment says."""
    rank, world = _number("RANK", 0), _number("WORLD_SIZE", 1)
    return Place(rank, world, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", world),
                 _number("TORCHELASTIC_RESTART_COUNT", 0))  # fmt: skip


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name) or default)

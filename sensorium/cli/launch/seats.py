"""Where the processes of a job sit, and what `torchrun` would have told each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seat:
    """What one process was given."""

    node: str
    """Which machine, by any name of its own."""
    address: str
    """By which other machines reach it."""
    gpus: tuple[str, ...] = ()
    """As the machine numbers them; none: it trains on processors."""


def by_machine(seats: Sequence[Seat]) -> list[int]:
    """Places in `seats` in the order of ranks: those of a machine follow each other, the first seat's machine leads."""
    nodes = list(dict.fromkeys(seat.node for seat in seats))
    return sorted(range(len(seats)), key=lambda i: (nodes.index(seats[i].node), i))


def environments(seats: Sequence[Seat], port: int, starts: int) -> list[dict[str, str]]:
    """The variables of every rank, as `torchrun` sets them and `distributed/place.py` reads them.

    Every process sees the GPUs of all those on its machine, in the order of their local ranks: the number that it takes
    is its local rank, and NCCL copies between GPUs only where it sees both. Where it was given none it sees none: Ray hides
    what it has given to others no longer.

    Args:
        seats: in the order of ranks (`by_machine`).
        port: a free one on the first seat's machine.
        starts: how often the job was started before.
    """
    every: list[dict[str, str]] = []
    for rank, seat in enumerate(seats):
        here = [n for n, other in enumerate(seats) if other.node == seat.node]
        told = {
            "RANK": rank, "WORLD_SIZE": len(seats), "LOCAL_RANK": here.index(rank), "LOCAL_WORLD_SIZE": len(here),
            "MASTER_ADDR": seats[0].address, "MASTER_PORT": port, "TORCHELASTIC_RESTART_COUNT": starts,
        }  # fmt: skip
        gpus = [gpu for n in here for gpu in seats[n].gpus]
        every.append({name: str(value) for name, value in told.items()} | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)})
    return every

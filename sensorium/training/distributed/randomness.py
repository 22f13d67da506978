"""Random state of every rank: dropout differs among them, and goes on where it stopped."""

from __future__ import annotations

import torch
from torch import Tensor

from sensorium.core.hashing import stable_int
from sensorium.training.checkpoint import read_rng, restore_rng
from sensorium.training.distributed.ranks import Ranks


def rank_seed(ranks: Ranks, seed: int) -> int:
    """The seed of a rank; rank 0 has the one of a run alone."""
    return seed if ranks.first else stable_int("rank", seed, ranks.rank)


def gather_rng(ranks: Ranks) -> dict[str, Tensor]:
    """The random state of all ranks: rank 0's by plain names, others' with their number behind."""
    mine = {name: state.numpy().tobytes().hex() for name, state in read_rng().items()}
    return {
        f"{name}.{rank}" if rank else name: torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8)
        for rank, states in enumerate(ranks.gather(mine))
        for name, state in states.items()
    }


def restore_rank_rng(ranks: Ranks, saved: dict[str, Tensor], seed: int) -> None:
    """Put this rank's state back; a rank that the saved run did not have is seeded.

    Args:
        seed: of the run; what is drawn depends on how far it had come, too.
    """
    mine = saved if ranks.first else {
        name.rpartition(".")[0]: state for name, state in saved.items() if name.endswith(f".{ranks.rank}")
    }  # fmt: skip
    if "torch" in mine:
        restore_rng(mine)
    else:
        torch.manual_seed(stable_int("rank", seed, ranks.rank, bytes(saved["torch"].tolist()).hex()))

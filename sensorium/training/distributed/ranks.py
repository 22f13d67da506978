"""Processes that train one model together, and what they tell each other.

What they say is JSON in tensors on the CPU: never objects, which torch would pickle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from sensorium.core.errors import SensoriumError
from sensorium.core.progress import Meter, progress
from sensorium.training.distributed.place import place

TIMEOUT = timedelta(minutes=10)
"""How long one waits for another that lives but says nothing. One that died is noticed at once."""
SHORT = 2048
"""Bytes of what is said in one round; what is longer takes a second one."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of a run, as one of them sees them."""

    rank: int = 0
    world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """What every rank says here, by rank; all of them must call it.

        Args:
            value: anything that JSON can hold; floats arrive as they were.

        Raises:
            SensoriumError: another process ended.
        """
        if self.world_size == 1:
            return [value]
        said = json.dumps(value).encode()
        size = len(said).to_bytes(8, "little")
        rounds = self._gather((size + said)[:SHORT].ljust(SHORT, b"\0"))
        sizes = [int.from_bytes(each[:8], "little") for each in rounds]
        if max(sizes) > SHORT - 8:
            rounds = self._gather((size + said).ljust(max(sizes) + 8, b"\0"))
        return [json.loads(each[8 : 8 + n]) for each, n in zip(rounds, sizes, strict=True)]

    def _gather(self, said: bytes) -> list[bytes]:
        mine = torch.frombuffer(bytearray(said), dtype=torch.uint8)
        all_of_them = [torch.empty_like(mine) for _ in range(self.world_size)]
        with alive():
            dist.all_gather(all_of_them, mine)
        return [each.numpy().tobytes() for each in all_of_them]

    def sum_(self, values: Tensor) -> None:
        """Replace a tensor by its sum over all ranks.

        Raises:
            SensoriumError: another process ended.
        """
        if self.world_size > 1:
            with alive():
                dist.all_reduce(values)

    def agree(self, error: Exception | None) -> None:
        """Raise on every rank if one of them failed.

        Raises:
            Exception: `error` itself, where there is one.
            SensoriumError: another rank failed; its message is in this one's.
        """
        told = self.gather(None if error is None else f"{type(error).__name__}: {error}")
        raise_one(error, told)

    def on_first(self, work: Callable[[], object]) -> None:
        """Let rank 0 do something while others wait; where it fails, all do."""
        self.on_all(work if self.first else lambda: None)

    def on_all(self, work: Callable[[], object]) -> None:
        """Let every rank do something; where one fails, all do."""
        error: Exception | None = None
        try:
            work()
        except Exception as raised:
            error = raised
        self.agree(error)

    @contextmanager
    def progress(self, title: str, total: int) -> Generator[Meter]:
        """Rank 0's meter; of others none is shown."""
        if not self.first:
            yield _Silent()
            return
        with progress(title, total) as meter:
            yield meter


ALONE = Ranks()


class _Silent:
    """A meter that nobody sees."""

    def update(self, done: int, note: str = "", total: int | None = None) -> None: ...


def raise_one(error: Exception | None, told: list[str | None]) -> None:
    """Raise this rank's own error, else what the first that failed said.

    Args:
        told: by rank, what went wrong; None: nothing.
    """
    if error is not None:
        raise error
    for rank, message in enumerate(told):
        if message is not None:
            raise SensoriumError(f"process {rank} failed: {message}")


@contextmanager
def alive() -> Iterator[None]:
    """Say in plain words that a peer is gone."""
    try:
        yield
    except RuntimeError as error:
        raise SensoriumError(
            f"another process of this run ended or says nothing ({str(error).splitlines()[0]})",
            fix="look for its own message above; the last checkpoint is whole, go on with --resume",
        ) from error


@contextmanager
def joined() -> Generator[Ranks]:
    """The processes that `torchrun` started, connected while the block lasts; without it, this one alone.

    Behind an error they are left connected for the process's end to cut: to part in order takes all of them.
    """
    here = place()
    if here.world_size == 1:
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(here.local_rank)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with alive():
        store, rank, world = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        if here.local_world_size == world:
            # Processes that torchrun starts again find the addresses of the dead in its store, and call those in vain.
            # (On several machines, whose counts may differ, only a new job helps.)
            store = PrefixStore(f"start {here.starts}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
    yield Ranks(here.rank, here.world_size)
    dist.destroy_process_group()

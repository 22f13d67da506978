"""Checkpoints in shares: every process writes the rows that it holds, and any number of processes read them.

A share is `weights.N.safetensors` and `optimiser.N.safetensors`; the first one also holds what is not divided. `state.json`
lists of every share its hashes, and of each of its pieces the first row and the shape of the whole. A reader of some
rows touches these alone: files are mapped into memory, not read.

Not `torch.distributed.checkpoint`: its index is a pickle, its planners hand each other pickles, and its writer of
safetensors keeps neither an index nor hashes. (torch 2.13: `filesystem.py`, `hf_storage.py`.)
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensorium.core.errors import CheckpointError
from sensorium.nn.pretrained import read_file
from sensorium.training.disk import naming
from sensorium.training.tensor_file import write_tensors

KINDS = ("weights", "optimiser")
LIMIT_S = 600.0
"""How long the first process waits for the shares of others that live."""
GRACE_S = 10.0
"""The same, once the run has failed."""
POLL_S = 0.02

Cut = list[int]
"""The first row of a piece, and the shape of the whole."""


@dataclass(slots=True)
class Share:
    """What one process writes of a checkpoint."""

    folder: Path
    """Where all of them write, before it becomes a checkpoint."""
    rank: int
    world_size: int
    tensors: dict[str, dict[str, Tensor]]
    """`weights` and `optimiser`; copies on the CPU."""
    cuts: dict[str, dict[str, Cut]] = field(default_factory=dict[str, dict[str, Cut]])
    """Of those of them that are pieces."""
    failed: threading.Event = field(default_factory=threading.Event)
    """Set where the run has failed, so that other shares may not come."""
    written: threading.Event = field(default_factory=threading.Event)
    """Set once this share is there, or will never be."""

    def write(self) -> None:
        """Write the files, then a note that they are there, or why not.

        Raises:
            OSError: names the file.
        """
        note = _note(self.folder, self.rank)
        try:
            hashes = {f"{kind}.{self.rank}": write_tensors(self.folder / f"{kind}.{self.rank}.safetensors", self.tensors[kind])
                      for kind in KINDS}  # fmt: skip
            with naming(note):
                _tell(note, {"sha256": hashes, "cuts": self.cuts})
        except Exception as error:
            # The first process waits for a word; a disk that is full may still take one.
            with suppress(OSError):
                _tell(note, {"error": str(error)})
            raise
        finally:
            self.written.set()


def collect(share: Share) -> tuple[dict[str, str], list[dict[str, dict[str, Cut]]]]:
    """Wait until all shares are written, and take their notes away.

    Args:
        share: the first process's own, which is written.

    Returns:
        The hashes of all files by their names, and the cuts of each share.

    Raises:
        CheckpointError: a share does not come, or could not be written.
    """
    hashes: dict[str, str] = {}
    cuts: list[dict[str, dict[str, Cut]]] = []
    for rank in range(share.world_size):
        path = _note(share.folder, rank)
        _await(path, rank, share.failed)
        note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "error" in note:
            raise CheckpointError(f"process {rank} could not write its share of the checkpoint: {note['error']}",
                                  where=str(share.folder.parent), fix="the last checkpoint is whole")  # fmt: skip
        hashes |= note["sha256"]
        cuts.append(note["cuts"])
        path.unlink()
    return hashes, cuts


def _await(path: Path, rank: int, failed: threading.Event) -> None:
    end, hurried = time.monotonic() + LIMIT_S, False
    while not path.exists():
        if failed.is_set() and not hurried:
            end, hurried = time.monotonic() + GRACE_S, True
        if time.monotonic() > end:
            raise CheckpointError(f"process {rank} did not write its share of the checkpoint", where=str(path.parent),
                                  fix="look for its own message above; the last checkpoint is whole")  # fmt: skip
        time.sleep(POLL_S)


def _tell(note: Path, content: dict[str, Any]) -> None:
    """A note that is there as a whole, and nothing behind it: the first process may then rename the folder at once."""
    half = note.with_suffix(".tmp")
    half.write_text(json.dumps(content), encoding="utf-8")
    half.replace(note)


def _note(folder: Path, rank: int) -> Path:
    return folder / f"share.{rank}.json"


class Joined(Mapping[str, Tensor]):
    """The tensors of all shares of a checkpoint, put together when they are asked for."""

    def __init__(self, shares: Sequence[dict[str, Tensor]], cuts: Sequence[dict[str, Cut]]) -> None:
        """Take what the files hold.

        Raises:
            CheckpointError: the pieces of a tensor do not make a whole.
        """
        self._whole = {name: value for tensors, mine in zip(shares, cuts, strict=True)
                       for name, value in tensors.items() if name not in mine}  # fmt: skip
        self._pieces: dict[str, list[tuple[int, Tensor]]] = {}
        self._shapes: dict[str, list[int]] = {}
        for tensors, mine in zip(shares, cuts, strict=True):
            for name, (start, *shape) in mine.items():
                self._pieces.setdefault(name, []).append((start, tensors[name]))
                self._shapes[name] = shape
        for name, pieces in self._pieces.items():
            cut = sorted((start, len(piece)) for start, piece in pieces)
            if [*(start for start, _ in cut), self._shapes[name][0]] != list(accumulate((rows for _, rows in cut), initial=0)):
                raise CheckpointError(f"the pieces of {name} do not make a whole of shape {self._shapes[name]}")

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Some rows of a tensor, in memory of their own."""
        if name in self._whole:
            return self._whole[name][start:stop].clone()
        first = self._pieces[name][0][1]
        found = torch.empty(stop - start, *self._shapes[name][1:], dtype=first.dtype)
        for begin, piece in self._pieces[name]:
            low, high = max(start, begin), min(stop, begin + len(piece))
            if low < high:
                found[low - start : high - start] = piece[low - begin : high - begin]
        return found

    def __getitem__(self, name: str) -> Tensor:
        return self._whole[name] if name in self._whole else self.rows(name, 0, self._shapes[name][0])

    def __iter__(self) -> Iterator[str]:
        yield from self._whole
        yield from self._pieces

    def __len__(self) -> int:
        return len(self._whole) + len(self._pieces)


def rows_of(tensors: Mapping[str, Tensor], name: str, start: int, stop: int) -> Tensor:
    """Some rows of a tensor of a checkpoint, whether or not it lies in pieces."""
    return tensors.rows(name, start, stop) if isinstance(tensors, Joined) else tensors[name][start:stop].clone()


def read_shares(folder: Path, kind: str, cuts: Sequence[dict[str, dict[str, Cut]]]) -> Joined:
    """The weights, or the optimiser's state, of a checkpoint in shares.

    Raises:
        WeightsError: a file is damaged.
        CheckpointError: the pieces of a tensor do not make a whole.
    """
    shares = [read_file(folder / f"{kind}.{rank}.safetensors") for rank in range(len(cuts))]
    return Joined(shares, [mine.get(kind, {}) for mine in cuts])

"""Streams made by processes of their own, so that making them and using them do not share one interpreter.

A process is a copy of this one (fork) and touches no GPU. Its items go by way of memory that both can see: their tensors lie end to end
in one anonymous file, whose number travels over a socket with what is left of the item. What a copy does is bound to its
parent: it ends when nobody listens any more.

Python runs one thread at a time: on a GPU, threads that read and tokenise would take from the one that keeps it busy.
"""

from __future__ import annotations

import gc
import io
import mmap
import os
import pickle
import signal
import socket
import struct
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import count
from typing import Any, TypeVar

import torch
from torch import Tensor

from sensorium.core.errors import DataError
from sensorium.core.quiet import GPU_CALLS

T = TypeVar("T")
HEAD = struct.Struct("<QQ")
"""Bytes of an item without its tensors, and of its tensors."""
ALIGNED = 64
IN_FLIGHT = 2
"""Items of a process that are made before they are asked for."""
GO = b"g"


def can_run_apart() -> bool:
    """Whether this system copies processes and has files without a name (Linux)."""
    return hasattr(os, "fork") and hasattr(os, "memfd_create") and hasattr(socket, "send_fds")


@contextmanager
def apart(make: Callable[[int], Generator[T]], processes: int, *, pinned: bool = False) -> Iterator[Generator[T]]:
    """While the block lasts, the items of all streams, one of each in turn.

    Args:
        make: the stream of a process, by its number; called there. What it raises is raised here, in its place.
        pinned: tensors arrive in page-locked memory, from which a GPU copies while it computes.

    Raises:
        DataError: of the items: a process ended before its time.
    """
    started: list[tuple[int, socket.socket]] = []
    try:
        for number in range(processes):
            started.append(_start(make, number, [wire for _, wire in started]))
        yield _items([wire for _, wire in started], pinned=pinned)
    finally:
        for pid, wire in started:
            wire.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _start(make: Callable[[int], Generator[Any]], number: int, others: Sequence[socket.socket]) -> tuple[int, socket.socket]:
    here, there = socket.socketpair()
    with warnings.catch_warnings():
        # Python warns of locks that other threads might hold; the copies use none of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        there.close()
        return pid, here
    # From here on this is the copy, which must never return into the caller's code.
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for wire in (here, *others):
            wire.close()
        gc.freeze()
        torch.set_num_threads(1)
        _work(make(number), there)
    finally:
        os._exit(0)


def _work(stream: Generator[Any], wire: socket.socket) -> None:
    """Send item after item, each when one more is wanted, and at last how it ended."""
    try:
        with closing(stream):
            for item in stream:
                if not wire.recv(1):
                    return
                _send(wire, item)
            end: BaseException = StopIteration()
    except BaseException as error:
        error.add_note(f"in a process that makes batches:\n{traceback.format_exc()}")
        end = error
    if wire.recv(1):
        _send(wire, _Ended(end))


class _Ended:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Pickler(pickle.Pickler):
    """Puts tensors aside."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.tensors: list[Tensor] = []
        self.size = 0

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Tensor):
            return None
        start = -(-self.size // ALIGNED) * ALIGNED
        self.size = start + obj.nbytes
        self.tensors.append(obj)
        return start, obj.nbytes, obj.dtype, tuple(obj.shape)


class _Unpickler(pickle.Unpickler):
    def __init__(self, told: bytes, memory_N: Tensor) -> None:
        super().__init__(io.BytesIO(told))
        self.memory_N = memory_N

    def persistent_load(self, pid: Any) -> Tensor:
        start, size, dtype, shape = pid
        return self.memory_N[start : start + size].view(dtype).view(shape)


def _send(wire: socket.socket, item: Any) -> None:
    told = io.BytesIO()
    pickler = _Pickler(told)
    pickler.dump(item)
    file = os.memfd_create("batch")
    try:
        os.ftruncate(file, max(1, pickler.size))
        with mmap.mmap(file, max(1, pickler.size)) as shared:
            memory_N, start = torch.frombuffer(shared, dtype=torch.uint8), 0
            for tensor in pickler.tensors:
                start = -(-start // ALIGNED) * ALIGNED
                memory_N[start : start + tensor.nbytes] = tensor.contiguous().reshape(-1).view(torch.uint8)
                start += tensor.nbytes
            del memory_N
        socket.send_fds(wire, [HEAD.pack(told.tell(), pickler.size)], [file])
    finally:
        os.close(file)
    wire.sendall(told.getvalue())


def _received(wire: socket.socket, *, pinned: bool) -> Any:
    head, files = b"", list[int]()
    with suppress(ConnectionResetError):
        head, files, _, _ = socket.recv_fds(wire, HEAD.size, 1)
    if not files:
        raise DataError("a process that makes batches ended before its time", expected="memory enough for all of them",
                        fix="set workers: 0 to make batches in this process, where errors show")  # fmt: skip
    try:
        length, size = HEAD.unpack(head)
        with GPU_CALLS:
            memory_N = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        if size:
            with mmap.mmap(files[0], size, access=mmap.ACCESS_READ) as shared, warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # Memory that cannot be written is only read.
                memory_N.copy_(torch.frombuffer(shared, dtype=torch.uint8))
    finally:
        os.close(files[0])
    told = bytearray()
    while len(told) < length:
        more = wire.recv(min(1 << 20, length - len(told)))
        if not more:
            raise DataError("a process that makes batches ended within one")
        told += more
    return _Unpickler(bytes(told), memory_N).load()


def _items(wires: Sequence[socket.socket], *, pinned: bool) -> Generator[Any]:
    for wire in wires:
        wire.sendall(GO * IN_FLIGHT)
    for number in count():
        wire = wires[number % len(wires)]
        item = _received(wire, pinned=pinned)
        if isinstance(item, _Ended):
            if isinstance(item.error, StopIteration):
                return
            raise item.error
        # One that has said its last word does not listen, which shows when its turn comes.
        with suppress(BrokenPipeError):
            wire.sendall(GO)
        yield item

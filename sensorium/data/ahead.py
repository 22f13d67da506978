"""The next items of a stream, made ready by a thread while the present one is worked on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Failed:
    error: BaseException


_END = object()


@contextmanager
def ahead(stream: Generator[T], ready: Callable[[T], T], depth: int = 1) -> Iterator[Generator[T]]:
    """While the block lasts, `ready` of each item, in order; what the stream raises is raised in its place.

    Args:
        stream: closed by the thread that reads it, when the block ends.
        depth: how many items wait at most; one more is in the making.
    """
    waiting: queue.Queue[object] = queue.Queue(depth)
    over = threading.Event()

    def put(item: object) -> bool:
        while not over.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in stream:
                if not put(ready(item)):
                    break
            else:
                put(_END)
        except BaseException as error:
            put(_Failed(error))
        finally:
            stream.close()

    def items() -> Generator[T]:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item  # pyright: ignore[reportReturnType]

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        yield items()
    finally:
        over.set()
        thread.join()

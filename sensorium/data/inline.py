"""Threads, or none: with no workers everything is done in the calling thread, when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sensorium.data.window import Coming

A = TypeVar("A")
R = TypeVar("R")


class Submit(Protocol):
    """Begins a call."""

    def __call__(self, function: Callable[[A], R], argument: A, /) -> Coming[R]: ...


@dataclass(frozen=True, slots=True)
class _Later:
    function: Callable[[Any], Any]
    argument: Any

    def result(self) -> Any:
        return self.function(self.argument)


@contextmanager
def helpers(workers: int) -> Generator[Submit]:
    """Begins calls in so many threads, which end with the context; what has not begun is dropped."""
    if not workers:
        yield _Later
        return
    pool = ThreadPoolExecutor(workers)

    def submit(function: Callable[[A], R], argument: A, /) -> Coming[R]:
        return pool.submit(function, argument)

    try:
        yield submit
    finally:
        pool.shutdown(wait=False, cancel_futures=True)

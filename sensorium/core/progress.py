"""Progress for people: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Protocol

PLAIN_EVERY_S = 10.0


class Meter(Protocol):
    """Something that counts up to a total; another total begins another phase."""

    def update(self, done: int, note: str = "", total: int | None = None) -> None: ...


class PlainMeter:
    """A line every few seconds, for logs and pipes."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        now = time.monotonic()
        if total is not None and total != self.total:
            self.total, self._first, self._start = total, None, now
        self._first = done if self._first is None else self._first
        if done < self.total and now - self._last < PLAIN_EVERY_S:
            return
        self._last = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        left = (self.total - done) / rate if rate > 0 else float("inf")
        tail = f"  {note}" if note else ""
        left_text = f"{left:.0f} s left" if left < 1e7 else "time left unknown"
        print(f"{self.title}: {done}/{self.total}  {rate:.1f}/s  {left_text}{tail}",
              file=sys.stderr, flush=True)  # fmt: skip


class RichMeter:
    """A bar of the rich library."""

    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        if total is not None:
            self._bar.update(self._task, total=total)
        self._bar.update(self._task, completed=done, note=note)


@contextmanager
def progress(title: str, total: int) -> Generator[Meter]:
    """A meter on standard error for as long as the block lasts."""
    if not sys.stderr.isatty():
        yield PlainMeter(title, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield RichMeter(bar, bar.add_task(title, total=total, note=""))

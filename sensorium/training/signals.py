"""SIGTERM and Ctrl-C: the step that runs is finished and saved, then the run ends with the signal's code."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from sensorium.core.errors import StoppedError

WATCHED = (signal.SIGTERM, signal.SIGINT)


@dataclass(slots=True)
class StopRequest:
    """Whether a signal came, and which."""

    number: int | None = None

    def leave(self, where: str) -> None:
        """End the run, which has saved itself.

        Raises:
            StoppedError: always; its exit code is 128 + the signal's number.
        """
        number = self.number or signal.SIGTERM
        stop = StoppedError(f"stopped by {signal.Signals(number).name}, and saved", where=where, fix="go on with --resume")
        stop.exit_code = 128 + number
        raise stop


@contextmanager
def watch_signals(stop: StopRequest) -> Generator[None]:
    """Note the first signal in `stop` while the block lasts; a second one acts as it did before the block."""
    if threading.current_thread() is not threading.main_thread():
        # Python lets only the main thread take signals.
        yield
        return
    before = {number: signal.getsignal(number) for number in WATCHED}

    def put_back() -> None:
        for number, handler in before.items():
            # None: set by something other than Python, and not to be had back.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def note(number: int, frame: FrameType | None) -> None:
        stop.number = number
        put_back()
        # A handler may interrupt a print: only the system's own write is safe in it.
        os.write(2, f"\n{signal.Signals(number).name}: finishing this step, then saving; once more stops at once\n".encode())

    for number, handler in before.items():
        # Ignored by whoever started us (nohup): it stays so.
        if handler is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield
    finally:
        put_back()

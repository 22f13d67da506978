"""Media in the making, on a terminal: a bar while there are steps, and Ctrl-C, which ends the making and keeps what there is."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from types import FrameType
from typing import Any

from sensorium.core.progress import Meter, progress


class Watch:
    """`progress` and `cancelled` of a `Making`, inside a `with`.

    Until the first medium is begun Ctrl-C ends the program as ever. Afterwards it sets `stopped`, which a generator looks at
    after each step; a second one ends the program.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._meter: Meter | None = None
        self._open = ExitStack()
        self._before: Any = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        self._open.close()

    def progress(self, done: int, total: int) -> None:
        """A step was done. What has one step alone, such as a voice, shows no bar."""
        if self._meter is None and total > 1:
            self._meter = self._open.enter_context(progress("making", total))
        if self._meter is not None:
            self._meter.update(done, total=total)

    def cancelled(self) -> bool:
        """Whether Ctrl-C was pressed; asked before each medium, and after each step."""
        if self._before is None and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._pressed)
        return self.stopped

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True

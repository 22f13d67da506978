"""Checkpoints written beside the training: a step waits only while its state is copied.

One writer thread at most is at work; a save that comes while it is waits for it. What the writer could not do is
raised in the training thread, at its next step or at the run's end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from sensorium.training.checkpoint import Checkpoint, save_checkpoint
from sensorium.training.disk import bytes_of, disk_error


class Saver:
    """Writes the checkpoints of one run."""

    def __init__(self, folder: Path, keep: int, before: Callable[[], None]) -> None:
        """Take where to write.

        Args:
            keep: how many checkpoints stay.
            before: makes safe what a checkpoint relies on; called by the writer.
        """
        self.folder = folder
        self.keep = keep
        self._before = before
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Begin to write a checkpoint, whose tensors are the caller's copies."""
        self.wait()
        # The process may end without it: whatever it leaves is no checkpoint yet.
        self._thread = threading.Thread(target=self._write, args=(checkpoint,), name="checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what the writer ran into, if it did."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def settle(self) -> None:
        """Wait until nothing is being written, whether or not that went well."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk.

        Raises:
            CheckpointError: it is not, and why.
        """
        self.settle()
        self.check()

    def _write(self, checkpoint: Checkpoint) -> None:
        try:
            self._before()
            save_checkpoint(self.folder, checkpoint, keep=self.keep)
        except OSError as error:
            needed = sum(bytes_of(x.values()) for x in (checkpoint.weights, checkpoint.optimiser))
            self._error = disk_error(error, self.folder, needed)
        except Exception as error:
            # A thread has nobody to raise to: the training thread does it (`check`).
            self._error = error

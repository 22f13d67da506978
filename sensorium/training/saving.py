"""Checkpoints written beside the training: a step waits only while its state is copied.

One writer thread at most is at work; a save that comes while it is waits for it. What the writer could not do is
raised in the training thread, at its next step or at the run's end. Where processes divide the model, each has a writer
for its share, and the first one's waits for all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from sensorium.training.checkpoint import Checkpoint, save_checkpoint
from sensorium.training.disk import bytes_of, disk_error
from sensorium.training.shares import Share


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
        self._failed = threading.Event()
        self._written: threading.Event | None = None
        self._error: Exception | None = None

    def save(self, checkpoint: Checkpoint | None, share: Share | None = None) -> None:
        """Begin to write a checkpoint, whose tensors are the caller's copies.

        Args:
            checkpoint: None in all but the first process, which write their shares alone.
        """
        self.wait()
        if share is not None:
            # The share itself holds copies that go when they are written.
            self._failed, self._written = share.failed, share.written
        # The process may end without it: whatever it leaves is no checkpoint yet.
        self._thread = threading.Thread(target=self._write, args=(checkpoint, share), name="checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what the writer ran into, if it did."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def settle(self, *, failed: bool = False) -> None:
        """Wait until nothing is being written, whether or not that went well.

        Args:
            failed: the run ends with an error, so that another process may never write its share.
        """
        if failed:
            self._failed.set()
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

    def wait_for_share(self) -> None:
        """Wait until this process's own share of the last checkpoint is written, or will never be."""
        if self._written is not None:
            self._written.wait()

    def _write(self, checkpoint: Checkpoint | None, share: Share | None) -> None:
        try:
            if checkpoint is not None:
                self._before()
                save_checkpoint(self.folder, checkpoint, keep=self.keep, share=share)
            elif share is not None:
                share.write()
        except OSError as error:
            written = () if checkpoint is None else (checkpoint.weights, checkpoint.optimiser)
            needed = sum(bytes_of(x.values()) for x in (*written, *(share.tensors.values() if share else ())))
            self._error = disk_error(error, self.folder, needed)
        except Exception as error:
            # A thread has nobody to raise to: the training thread does it (`check`).
            self._error = error
        finally:
            if share is not None:
                share.written.set()

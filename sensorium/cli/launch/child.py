"""One process of a job: the command line in a process of its own, heard and signalled from outside.

Without torch, so that a cluster's worker that holds it starts at once.
"""

from __future__ import annotations

import codecs
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sensorium.core.errors import ConfigError

HELD = "sensorium.cli.launch.held"
ENDS_S = 5
"""How long the rest of what an ended process said is waited for: a process of its own may hold the pipe open."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a process said since it was last asked."""

    pieces: list[tuple[str, str]]
    """`out` or `err`, and text."""
    code: int | None
    """Its exit code, once it has ended and all is said; below zero: minus the signal that killed it."""


class Child:
    """A process that runs `sensorium ARGUMENTS`; it saves and ends when the process that holds it dies."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        """Start it.

        Args:
            environment: what it has beyond this process's own.
            folder: where relative paths begin.

        Raises:
            ConfigError: there is no such folder on this machine.
        """
        if not Path(folder).is_dir():
            raise ConfigError(f"this machine has no folder {folder}",
                              fix="launch from a folder that every machine of the cluster has, with data and runs in it")  # fmt: skip
        self._change = threading.Condition()
        self._pieces: list[tuple[str, str]] = []
        # A session of its own: Ctrl-C at the terminal comes once, from the launcher.
        self.process = subprocess.Popen(
            [sys.executable, "-m", HELD, *arguments], env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"}, cwd=folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        streams = (("out", self.process.stdout), ("err", self.process.stderr))
        self._readers = [threading.Thread(target=self._read, args=pair, daemon=True) for pair in streams]
        for reader in self._readers:
            reader.start()
        self._ended = False
        threading.Thread(target=self._wait, daemon=True).start()

    def follow(self, wait_s: float) -> Heard:
        """What it said since the last call; waits until there is something, or it ends."""
        with self._change:
            self._change.wait_for(lambda: bool(self._pieces) or self._ended, wait_s)
            pieces, self._pieces = self._pieces, []
            return Heard(pieces, self.process.returncode if self._ended else None)

    def signal(self, number: int) -> None:
        """Send a signal to it, if it still runs."""
        self.process.send_signal(number)

    def _read(self, name: str, stream: IO[bytes]) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while piece := os.read(stream.fileno(), 65536):
            with self._change:
                self._pieces.append((name, decoder.decode(piece)))
                self._change.notify_all()

    def _wait(self) -> None:
        self.process.wait()
        for reader in self._readers:
            reader.join(ENDS_S)
        with self._change:
            self._ended = True
            self._change.notify_all()

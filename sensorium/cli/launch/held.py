"""`sensorium`, held by the process that started it: when that one dies, this one saves and ends.

    python -m sensorium.cli.launch.held ARGUMENTS

A cluster takes a worker for dead and gives its GPU to the next one, but what the worker had started would live on; and
behind a killed `torchrun` its processes would train on, beside those of the job that is started anew.
Standard input is a pipe that the holder never writes to: it ends with the holder, however that ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

SAVES_S = 60
"""How long it has to finish its step and save."""


def hold() -> None:
    """From now on, end with the process that started this one."""
    threading.Thread(target=_watch, daemon=True).start()


def hold_what_starts() -> None:
    """From now on, give what this process starts a standard input that ends with this process."""
    reads, _ = os.pipe()
    # It is 0 already where this process was started without a standard input.
    if reads:
        os.dup2(reads, 0)
        os.close(reads)
    os.set_inheritable(0, True)


def _watch() -> None:
    while os.read(0, 1024):
        pass
    # Nobody reads any more, and a word into a broken pipe would be an error in the midst of saving.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVES_S)
    os._exit(128 + signal.SIGTERM)


def main() -> None:
    """Run the command line, held."""
    from sensorium.cli.main import main as sensorium

    hold()
    sys.argv[0] = "sensorium"
    sensorium()


if __name__ == "__main__":
    main()

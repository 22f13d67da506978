"""`sensorium`, held by the process that started it: when that one dies, this one saves and ends.

    python -m sensorium.training.launch.held ARGUMENTS

A cluster takes a worker for dead and gives its GPU to the next one, but what the worker had started would live on.
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


def _watch() -> None:
    while os.read(0, 1024):
        pass
    os.write(2, b"\nthe process that started this one is gone\n")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVES_S)
    os._exit(128 + signal.SIGTERM)


def main() -> None:
    """Run the command line, watched."""
    from sensorium.cli.main import main as sensorium

    threading.Thread(target=_watch, daemon=True).start()
    sys.argv[0] = "sensorium"
    sensorium()


if __name__ == "__main__":
    main()

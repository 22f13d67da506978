"""A job on this machine: `torchrun`, with processes that end when it does, and an end as theirs is."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

from sensorium.cli.launch.child import HELD
from sensorium.cli.launch.held import hold_what_starts
from sensorium.cli.launch.job import Ending, failure, stopped

SETTINGS = {
    "OMP_NUM_THREADS": "1",
    # Half a minute otherwise, and a process that still saves itself behind a signal is killed. None waits longer for another.
    "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600",
    # Not SIGHUP, which nohup ignores: torchrun would take it all the same, and end the job with the terminal.
    "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT",
}
LATE_S = 10
"""Who ends so long behind the first that failed was killed by torchrun."""


def run_here(command: Sequence[str], processes: int, restarts: int) -> None:
    """Run `sensorium COMMAND` in several processes.

    Raises:
        StoppedError: a signal came, and all processes have ended.
        SensoriumError: a process failed; the exit code is the process's.
    """
    # Costly imports, which a cluster's launcher does without.
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    hold_what_starts()
    try:
        torchrun(words_of(command, processes, restarts))
    except SignalException as stop:
        raise stopped(stop.sigval, f"all {processes} processes have ended") from None
    except ChildFailedError as error:
        raise failure(endings_of(error.failures)) from None


def words_of(command: Sequence[str], processes: int, restarts: int) -> list[str]:
    """Torchrun's arguments."""
    return ["--standalone", "--nproc-per-node", str(processes), "--max-restarts", str(restarts), "-m", HELD, *command]


def endings_of(failures: dict[int, Any]) -> list[Ending]:
    """How processes failed by themselves; not those that torchrun ended because of them.

    Args:
        failures: by rank, torchrun's `ProcessFailure`.
    """
    first = min(each.timestamp for each in failures.values())
    told = {rank: each.exitcode for rank, each in failures.items() if each.timestamp < first + LATE_S}
    own = {rank: code for rank, code in told.items() if code not in (-signal.SIGTERM, 128 + signal.SIGTERM)}
    return [Ending(rank, code, "") for rank, code in (own or told).items()]

"""A job of several processes, watched from outside: what the first says, how each ends, and whether to start again.

It knows nothing of the cluster: a process is whatever can be followed and signalled.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from sensorium.cli.launch.child import Heard
from sensorium.core.errors import SensoriumError, StoppedError
from sensorium.training.signals import StopRequest

GRACE_S = 30
"""How long the others may still run behind one that ended: they notice at once, and rank 0 may be writing a checkpoint."""
TAIL = 2000
"""Letters of what a process said that are kept, for when it fails."""

Say = Callable[[str, str], None]
"""Print a piece of text: the stream's name (`out`, `err`), the text."""


class Rank(Protocol):
    """One process of the job."""

    def follow(self) -> Future[Heard]:
        """What it says next; the future fails when the process and its machine's worker are lost."""
        ...

    def signal(self, number: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended."""

    rank: int
    code: int
    """Below zero: minus the signal that killed it, SIGKILL where it was lost with its machine."""
    told: str
    """The last that it said on standard error, or why it is lost."""
    cleared: bool = False
    """Ended by us, because another one had ended before."""

    @property
    def killed(self) -> bool:
        return self.code < 0 and not self.cleared


def watch(ranks: Sequence[Rank], stop: StopRequest, say: Say) -> list[Ending]:
    """Wait for all processes, in the order in which they end; prints what rank 0 says.

    Where one fails, the others have `GRACE_S` to end by themselves. A signal in `stop` goes to all of them as SIGTERM.
    """
    coming = {rank.follow(): number for number, rank in enumerate(ranks)}
    tails, endings = [""] * len(ranks), list[Ending]()
    told_to_stop, cleared, deadline = False, False, float("inf")
    while coming:
        done, _ = wait(coming, timeout=0.1, return_when=FIRST_COMPLETED)
        for future in done:
            number = coming.pop(future)
            try:
                heard = future.result()
            except Exception as lost:
                endings.append(Ending(number, -signal.SIGKILL, f"its worker is lost ({_why(lost)})", cleared))
                continue
            for stream, text in heard.pieces:
                if number == 0:
                    say(stream, text)
                if stream == "err":
                    tails[number] = (tails[number] + text)[-TAIL:]
            if heard.code is None:
                coming[ranks[number].follow()] = number
            else:
                endings.append(Ending(number, heard.code, tails[number].strip(), cleared))
        if stop.number is not None and not told_to_stop:
            told_to_stop = True
            # Whatever came: a cluster's workers ignore Ctrl-C, and so would what they started.
            _send(ranks, coming.values(), signal.SIGTERM)
        if deadline == float("inf") and not cleared and any(each.code for each in endings):
            deadline = time.monotonic() + GRACE_S
        if coming and time.monotonic() > deadline:
            cleared, deadline = True, float("inf")
            _send(ranks, coming.values(), signal.SIGKILL)
    return endings


def _send(ranks: Sequence[Rank], which: Iterable[int], number: int) -> None:
    for rank in which:
        ranks[rank].signal(number)


def run_job(
    started: Callable[[int], AbstractContextManager[Sequence[Rank]]], stop: StopRequest, say: Say, restarts: int
) -> None:
    """Run a job to its end; where a process of it was killed, start it again.

    Args:
        started: given how often the job was started before, starts its processes and clears them away afterwards.
        restarts: how often it is started again at most.

    Raises:
        StoppedError: a signal came, and all processes have ended.
        SensoriumError: a process failed, or was killed once too often; its exit code is the process's.
    """
    for starts in range(restarts + 1):
        with started(starts) as ranks:
            endings = watch(ranks, stop, say)
        codes = {each.code for each in endings}
        if codes == {0}:
            return
        if stop.number is not None and codes <= {0, 128 + signal.SIGTERM, -signal.SIGTERM}:
            raise stopped(stop.number, f"all {len(endings)} processes have ended")
        dead = next((each for each in endings if each.killed), None)
        if dead is None or stop.number is not None or starts == restarts:
            raise failure(endings)
        say("err", f"{_cause(dead)}; start {starts + 2} of at most {restarts + 1}, from the last checkpoint\n")


def stopped(number: int, what: str) -> StoppedError:
    """The end of a job that was asked to stop, with the exit code of the signal."""
    end = StoppedError(f"stopped by {signal.Signals(number).name}: {what}", fix="go on with --resume")
    end.exit_code = 128 + number
    return end


def failure(endings: Sequence[Ending]) -> SensoriumError:
    """What made a job fail: a process that was killed, else one with a message of its own, else the first that failed.

    Args:
        endings: in the order in which the processes ended; one of them failed.
    """
    failed = [each for each in endings if each.code]
    killed = [each for each in failed if each.killed]
    # Exit code 1 may only say that another process failed. What all say, rank 0 has said.
    own = sorted((each for each in failed if each.code > 1), key=lambda each: each.rank)
    blamed = (killed or own or failed)[0]
    error = SensoriumError(_cause(blamed), fix="the last checkpoint is whole, go on with --resume" if blamed.killed else None)
    error.exit_code = blamed.code if blamed.code > 0 else 128 - blamed.code
    return error


def _why(lost: Exception) -> str:
    """The first sentences of each paragraph: a cluster adds numbers of its own, and guesses."""
    lines = [line for line in str(lost).splitlines() if line[:1].strip()]
    return " ".join(line.partition(". ")[0].rstrip(".") + "." for line in lines)[:TAIL] or type(lost).__name__


def _cause(ending: Ending) -> str:
    how = f"was killed by {signal.Signals(-ending.code).name}" if ending.code < 0 else f"failed with exit code {ending.code}"
    return f"process {ending.rank} {how}" + (f": {ending.told}" if ending.told and (ending.rank or ending.code < 0) else "")

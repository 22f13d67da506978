"""The processes of a job as actors of a Ray cluster, one for each, packed onto few machines (a placement group).

An actor holds the process and says what it says; nothing of training runs inside Ray, so that a job is the same with and
without it. Plain actors and not Ray's jobs: those need the dashboard and its packages, run one driver on one machine, and
know nothing of ranks. (https://docs.ray.io/en/latest/ray-core/scheduling/placement-group.html)

Whoever reaches a Ray cluster runs code on it. Ray checks a token since 2.52, but only where it is told to; here it is told
to. (https://docs.ray.io/en/latest/ray-security/token-auth.html)
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensorium.cli.launch.child import Child, Heard
from sensorium.cli.launch.job import Say, stopped
from sensorium.cli.launch.seats import Seat, by_machine, environments
from sensorium.core.errors import ConfigError, MissingDependencyError, SensoriumError
from sensorium.training.signals import StopRequest

FOLLOW_S = 1.0
ROOM_S = 300
"""How long a job waits for room on the cluster: others end, and some clusters grow."""
STARTS_S = 120
ANSWERS_S = 10
NEW_TOKEN = "ray get-auth-token --generate"
PASSED_ON = ("SENSORIUM_", "NCCL_", "GLOO_", "TORCH_")
"""Variables of the launcher that the processes get, by how they begin. Nothing secret: Ray encrypts only with TLS set up."""
PASSED_ON_TOO = ("OMP_NUM_THREADS", "PYTHONPATH", "HF_HUB_OFFLINE")


@dataclass(frozen=True, slots=True)
class ClusterJob:
    """What is to run, and on what."""

    arguments: Sequence[str]
    """Of `sensorium`."""
    processes: int
    gpus: int | None = None
    """Of each process, 0 or 1; None: 1 on a cluster that has some."""
    folder: str = "."
    """Where relative paths begin, on every machine."""


class Seated:
    """What an actor does: it says where it sits, and holds a process."""

    def __init__(self) -> None:
        self.child: Child | None = None

    def seat(self) -> tuple[str, str, tuple[str, ...], int]:
        """The fields of its Seat, and a free port."""
        import ray

        context = ray.get_runtime_context()
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        gpus = tuple(str(gpu) for gpu in context.get_accelerator_ids().get("GPU", []))
        return context.get_node_id(), ray.util.get_node_ip_address(), gpus, port

    def begin(self, arguments: Sequence[str], environment: dict[str, str], folder: str) -> None:
        """Start the process."""
        self.child = Child(arguments, environment, folder)

    def follow(self) -> Heard:
        assert self.child is not None
        return self.child.follow(FOLLOW_S)

    def signal(self, number: int) -> None:
        if self.child is not None:
            self.child.signal(number)


@dataclass(frozen=True, slots=True)
class RayRank:
    """An actor as `job.watch` knows it."""

    actor: Any

    def follow(self) -> Future[Heard]:
        return self.actor.follow.remote().future()

    def signal(self, number: int) -> None:
        self.actor.signal.remote(number)


@contextmanager
def connected(address: str | None, token_file: str | None) -> Generator[Any]:
    """The module `ray`, connected to a cluster while the block lasts.

    Args:
        address: of the cluster; `local`: a new one on this machine, that ends with the block; None: the one that
            RAY_ADDRESS names or that runs on this machine, else a new one.
        token_file: holds the cluster's token; None: where Ray looks for it.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: there is no such file, or no token in it.
        SensoriumError: no cluster answers there, or it refuses the token.
    """
    _choose_token(token_file)
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address in (None, "local"):
        # Also where none was named: Ray may find none, and begins one then.
        _own_token()
        # Ray's workers make way for everything else on the machine, and training would with them.
        os.environ.setdefault("RAY_worker_niceness", "0")
    # What Ray will do in later releases, it says at each start; GPUs are told to the processes by hand.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is not None and address != "local":
        _check_answers(address)
        # It answers: whom it refuses now it would refuse twenty times, once a second.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "3")
    try:
        import ray
        from ray.exceptions import AuthenticationError
    except ImportError as error:
        raise MissingDependencyError(f"launching on a cluster needs Ray ({error})", fix="pip install 'sensorium[ray]'") from None
    with _unsaid() as unsaid:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR",
                     include_dashboard=False if address in (None, "local") else None)  # fmt: skip
        except AuthenticationError as error:
            raise _refused(error.message) from None
        except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
            if "InvalidAuthToken" in unsaid() + str(error):
                raise _refused("the token is not the cluster's") from None
            raise SensoriumError(f"no Ray cluster to be had at {address or 'this machine'}: {str(error).strip().splitlines()[0]}",
                                 fix="start one with `ray start --head`, or use --ray local") from error  # fmt: skip
    try:
        yield ray
    finally:
        ray.shutdown()


def _choose_token(token_file: str | None) -> None:
    """Ask Ray for authentication, unless the user said otherwise, and name the token's file to it."""
    if token_file is not None:
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(Path(token_file).resolve())
        # Ray would take this one first.
        os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    named = None if os.environ.get("RAY_AUTH_TOKEN") else os.environ.get("RAY_AUTH_TOKEN_PATH")
    # Ray ends the whole process where there is none.
    if named is not None and not _has_text(Path(named)):
        raise ConfigError(f"there is no token in the file {named}", fix=f"put the cluster's into it, or a new one: {NEW_TOKEN}")


def _has_text(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False


def _own_token() -> None:
    """A token for clusters of this user, where there is none. Ray would write one that everybody on the machine may read."""
    path = Path.home() / ".ray" / "auth_token"
    if not os.environ.get("RAY_AUTH_TOKEN") and not os.environ.get("RAY_AUTH_TOKEN_PATH") and not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        # Another job may begin beside this one.
        with suppress(FileExistsError), open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))


def _refused(why: str) -> SensoriumError:
    return SensoriumError(f"the Ray cluster was not entered: {why}",
                          fix=f"give its token with --token-file, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token (a new one: {NEW_TOKEN})")  # fmt: skip


def _check_answers(address: str) -> None:
    """Does anything listen there? Ray would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWERS_S).close()
    except OSError as error:
        raise SensoriumError(f"no Ray cluster answers at {address}: {error}",
                             fix="start one with `ray start --head`, or use --ray local") from None  # fmt: skip


@contextmanager
def _unsaid() -> Generator[Callable[[], str]]:
    """Keep back what is written to standard error, by libraries too: Ray says there alone, and often, why it gets no answer."""
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)

        def said() -> str:
            size = kept.seek(0, os.SEEK_END)
            kept.seek(0)
            return kept.read(size).decode(errors="replace")

        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)


@contextmanager
def seated(ray: Any, job: ClusterJob, starts: int, stop: StopRequest, say: Say) -> Generator[list[RayRank]]:
    """The processes of a job, running; behind the block all of them are gone.

    Raises:
        ConfigError: the cluster has no room for them, and gets none.
        StoppedError: a signal came before there was room.
        SensoriumError: a process could not be started.
    """
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    bundle = {"CPU": 1.0} | ({"GPU": 1.0} if (job.gpus if job.gpus is not None else has_gpus) else {})
    group = ray.util.placement_group([bundle] * job.processes, strategy="PACK")
    actors: list[Any] = []
    try:
        _wait_for_room(ray, group, bundle, job.processes, stop, say)
        place = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
        Actor = ray.remote(Seated)
        actors += [
            Actor.options(num_cpus=1, num_gpus=bundle.get("GPU", 0), max_concurrency=4,
                          scheduling_strategy=place(group, placement_group_bundle_index=n)).remote()
            for n in range(job.processes)
        ]  # fmt: skip
        found = _all_of(ray, [actor.seat.remote() for actor in actors])
        order = by_machine([Seat(*each[:3]) for each in found])
        seats = [Seat(*found[n][:3]) for n in order]
        told = environments(seats, found[order[0]][3], starts)
        ranks = [actors[n] for n in order]
        _all_of(ray, [actor.begin.remote(list(job.arguments), passed_on() | mine, job.folder)
                      for actor, mine in zip(ranks, told, strict=True)])  # fmt: skip
        yield [RayRank(actor) for actor in ranks]
    finally:
        for actor in actors:
            ray.kill(actor)
        ray.util.remove_placement_group(group)


def passed_on() -> dict[str, str]:
    """Variables of the launcher that the processes get; one thread for each process, where nothing is said."""
    chosen = {k: v for k, v in os.environ.items() if k.startswith(PASSED_ON) or k in PASSED_ON_TOO}
    return {"OMP_NUM_THREADS": "1"} | chosen


def _wait_for_room(ray: Any, group: Any, bundle: dict[str, float], processes: int, stop: StopRequest, say: Say) -> None:
    needs = f"{processes} times {_amounts(bundle)}"
    deadline, said, ready = time.monotonic() + ROOM_S, False, group.ready()
    while not ray.wait([ready], timeout=1.0)[0]:
        free, every = ({name: has.get(name, 0.0) for name in bundle} for has in (ray.available_resources(), ray.cluster_resources()))
        if not said:
            say("err", f"waiting for {needs}; of the cluster's {_amounts(every)} there are free {_amounts(free)}\n")
            said = True
        if stop.number is not None:
            raise stopped(stop.number, "before the job began")
        if time.monotonic() > deadline:
            raise ConfigError(f"the job needs {needs}", expected=f"no more than {_amounts(free)}, which the cluster has free",
                              fix="use fewer --processes, or wait until others end")  # fmt: skip
    ray.get(ready)


def _amounts(resources: dict[str, float]) -> str:
    return " and ".join(f"{count:g} {name}" for name, count in resources.items())


def _all_of(ray: Any, references: list[Any]) -> list[Any]:
    try:
        return ray.get(references, timeout=STARTS_S)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, SensoriumError):
            # As it was raised: Ray's own error of the same class has a traceback for a message.
            raise cause from None
        raise SensoriumError(f"a process could not be started: {cause or str(error).strip().splitlines()[-1]}") from error

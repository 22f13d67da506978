"""`launch`: one training job as several processes, on this machine through `torchrun` or on a Ray cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from typer.core import TyperCommand

from sensorium.core.errors import ConfigError

FIND = "find"
"""The address that `--ray` alone stands for."""


class LaunchCommand(TyperCommand):
    """`--ray` may stand without an address, which typer's options cannot."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        return super().parse_args(ctx, with_address(args))


def with_address(arguments: Sequence[str]) -> list[str]:
    """The launcher's arguments with an address behind every `--ray`; those of the job, behind `--`, stay."""
    found = list[str]()
    for number, each in enumerate(arguments):
        if each == "--":
            return found + list(arguments[number:])
        found.append(each)
        after = arguments[number + 1] if number + 1 < len(arguments) else "-"
        if each == "--ray" and after.startswith("-"):
            found.append(FIND)
    return found


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """How a job is started."""

    processes: int = 1
    restarts: int = 0
    ray: str | None = None
    gpus: int | None = None
    token_file: str | None = None


def launch(
    command: Annotated[list[str], typer.Argument(metavar="-- train RECIPE ...", help="What every process runs, behind `--`.")],
    processes: Annotated[int, typer.Option("--processes", "-n", min=1, help="How many; one for each GPU.")] = 1,
    restarts: Annotated[int, typer.Option(min=0, help="How often the job is started again from its last checkpoint.")] = 0,
    ray: Annotated[str | None, typer.Option(metavar="[ADDRESS]", help="On a Ray cluster: HOST:PORT, local (a new one, here); none: the one that this machine belongs to.")] = None,
    gpus_per_process: Annotated[int | None, typer.Option(min=0, max=1, help="--ray: 0 or 1; default: 1 where the cluster has GPUs.")] = None,
    token_file: Annotated[str | None, typer.Option(help="--ray: holds the cluster's token; default: as Ray finds it.")] = None,
) -> None:
    """Train on several processes: `sensorium launch --processes 2 -- train RECIPE`."""
    launch_command(command, LaunchOptions(processes, restarts, ray, gpus_per_process, token_file))


def launch_command(command: Sequence[str], options: LaunchOptions) -> None:
    """Start `train` in several processes, and end as they do.

    Raises:
        ConfigError: it is not `train`, or options do not go together.
        SensoriumError: a process failed.
    """
    if not command or command[0] != "train":
        raise ConfigError(f"launch was given {' '.join(command) or 'nothing'!r}", expected="train RECIPE ... behind `--`",
                          fix="other commands run in one process: sensorium COMMAND ...")  # fmt: skip
    if options.ray is not None:
        _on_ray(command, options)
        return
    if options.gpus is not None or options.token_file is not None:
        raise ConfigError("--gpus-per-process and --token-file belong to --ray", fix="leave them out: torchrun gives process N the GPU N")
    from sensorium.cli.launch.here import run_here

    run_here(command, options.processes, options.restarts)


def _on_ray(command: Sequence[str], options: LaunchOptions) -> None:
    from sensorium.cli.launch.job import run_job
    from sensorium.cli.launch.ray_cluster import ClusterJob, connected, seated
    from sensorium.training.signals import StopRequest, watch_signals

    job = ClusterJob(command, options.processes, options.gpus, os.getcwd())
    address = None if options.ray == FIND else options.ray
    stop = StopRequest()
    # Ray takes SIGTERM for itself when it connects; ours goes over it.
    with connected(address, options.token_file) as ray, watch_signals(stop):
        run_job(lambda starts: seated(ray, job, starts, stop, say), stop, say, options.restarts)


def say(stream: str, text: str) -> None:
    """What rank 0 said, where it would have said it."""
    to = sys.stdout if stream == "out" else sys.stderr
    to.write(text)
    to.flush()

"""A job of which a process is killed is started again, and ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch.distributed.fsdp
import torch.distributed.tensor  # In the parent: no forked process needs to.  # noqa: F401
from test_several_processes import END_S, SHORT, on_processes, same, tiny, train
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from sensorium.cli.training import train_command
from sensorium.training.distributed.place import place
from sensorium.training.stage_run import StageRun

KILLED_AT = 8


@pytest.mark.parametrize("shard", ["none", "full"])
def test_a_killed_process_starts_the_job_again(
    shard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Under the agent that is in `torchrun`: `kill -9` of one process ends the other, which may be within a pass that both
    make together, and the job goes on from its last checkpoint."""
    folder, at, on = tmp_path / "run", tmp_path / "at", tmp_path / "on"
    more = ("stages.instruct.steps=12", "stages.instruct.checkpoint_every=2", f"shard={shard}")
    # First, so that the forks find imported what it imports.
    train(tiny(*more), tmp_path / "alone")
    real = StageRun._counted

    def logged() -> int:
        return (folder / "log.jsonl").read_text().count("\n")

    def dying(self: StageRun, drawn: Any, tally: Any) -> Any:
        if self.trainer.ranks.rank == 1 and place().starts == 0 and logged() >= KILLED_AT:
            at.write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
        if place().starts and self.trainer.ranks.first and not on.exists():
            on.write_text(str(logged()))
        return real(self, drawn, tally)

    monkeypatch.setattr(StageRun, "_counted", dying)

    def worker() -> None:
        if place().starts:
            # The failed start is cleared away, and this one begins.
            assert time.time() - float(at.read_text()) < END_S
        train_command("tiny", [*SHORT, *more], str(folder), resume=False, tensorboard=False, plan_only=False, as_json=False)

    def agent() -> None:
        config = LaunchConfig(1, 1, nproc_per_node=2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id="one",
                              max_restarts=1, start_method="fork", monitor_interval=0.05)  # fmt: skip
        elastic_launch(config, worker)()

    capfd.readouterr()
    [(code, failed)] = on_processes(1, agent, tmp_path / "failed")
    said = capfd.readouterr()
    assert code == 0, failed + said.err
    # One of two speaks, in the first start and in the second.
    assert said.err.count("stage align: 3 steps") == 2
    assert said.out.count("Model: ") == 1
    assert KILLED_AT - 4 < int(on.read_text()) <= KILLED_AT
    same(tmp_path / "alone", folder)

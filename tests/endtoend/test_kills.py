"""`kill -9` within saves, and resumes at random steps: nothing is lost, nothing damaged is taken, every bit is the same.

A few of each here; `SENSORIUM_FAULTS=full` does 100 kills and 20 resumes (`make` has no part in it: minutes).
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from faults import same_run, tiny, train

from sensorium.core import atomic
from sensorium.training import saving, tensor_file
from sensorium.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sensorium.training.config import Recipe
from sensorium.training.objectives import next_token

FULL = os.environ.get("SENSORIUM_FAULTS") == "full"
KILLS = 100 if FULL else 6
RESUMES = 5 if FULL else 1
PROBES = 2

Place = tuple[int, int, bool]


def place_of(checkpoint: Checkpoint) -> Place:
    return checkpoint.stage, checkpoint.step, checkpoint.finished


def digest(checkpoint: Checkpoint) -> str:
    """Of all that a checkpoint holds that is not a matter of time, as the log's length is."""
    made = hashlib.sha256(repr((checkpoint.counts, checkpoint.bad_in_row)).encode())
    for tensors in (checkpoint.weights, checkpoint.optimiser, checkpoint.rng):
        for name in sorted(tensors):
            made.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return made.hexdigest()


class Operations:
    """Counts what a save does to the disk, and may kill the process in the midst of it."""

    def __init__(self, patch: pytest.MonkeyPatch, *, kill_at: int | None = None) -> None:
        self.done = 0
        self._kill_at = kill_at
        self._patch = patch
        self._watch(tensor_file, "_write")
        self._watch(atomic, "_sync_file")
        self._watch(Path, "rename")
        self._watch(atomic, "_remove")

    def _watch(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counted(*args: Any) -> Any:
            self.done += 1
            if self.done == self._kill_at:
                if name == "_write":
                    # Torn in the middle of a piece.
                    os.write(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args)

        self._patch.setattr(owner, name, counted)


def killed_within_a_save(recipe: Recipe, folder: Path, kill_at: int) -> list[Place] | None:
    """Train in a child that dies at an operation of its saves.

    Returns:
        The checkpoints that it had finished writing; None: it came to its end before.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

            def save(target: Path, checkpoint: Checkpoint, **options: Any) -> None:
                save_checkpoint(target, checkpoint, **options)
                stage, step, finished = place_of(checkpoint)
                os.write(write, f"{stage} {step} {int(finished)}\n".encode())

            patch = pytest.MonkeyPatch()
            patch.setattr(saving, "save_checkpoint", save)
            Operations(patch, kill_at=kill_at)
            train(recipe, folder, resume=True)
            os._exit(0)
        except BaseException:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as stream:
        told = [line.split() for line in stream]
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return None if code == 0 else [(int(a), int(b), c == "1") for a, b, c in told]


def test_kills_within_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny(*(f"stages.{s}.{x}" for s in ("align", "instruct") for x in ("checkpoint_every=1", "steps=4")))
    right: dict[Place, str] = {}
    with monkeypatch.context() as patch:
        operations = Operations(patch)

        def save(target: Path, checkpoint: Checkpoint, **options: Any) -> None:
            right[place_of(checkpoint)] = digest(checkpoint)
            save_checkpoint(target, checkpoint, **options)

        patch.setattr(saving, "save_checkpoint", save)
        train(recipe, tmp_path / "whole")
    assert len(right) == 8
    rng, kills, run, last = random.Random(5), 0, 0, (0, 0, False)
    while kills < KILLS:
        folder = tmp_path / f"killed{run}"
        told = killed_within_a_save(recipe, folder, rng.randint(1, operations.done // 3))
        if told is not None:
            kills += 1
            last = max([last, *told])
            found = load_checkpoint(folder / "checkpoint")
            if found is None:
                assert last == (0, 0, False)
                continue
            # Nothing that was safe is lost, and what is taken is what the whole run had there.
            assert place_of(found) >= last
            assert digest(found) == right[place_of(found)]
            continue
        same_run(tmp_path / "whole", folder)
        run, last = run + 1, (0, 0, False)
    train(recipe, tmp_path / f"killed{run}", resume=True)
    same_run(tmp_path / "whole", tmp_path / f"killed{run}")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("lora", [False, True])
def test_resumes_at_random_steps(workers: int, lora: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout, accumulation and packing are on: random numbers, and rows that are left over, are part of the state."""
    adapter = ("model.adapter={rank: 2, dropout: 0.3}", "stages.instruct.learns=[{part: adapter, lr: 0.02}]")
    recipe = tiny(
        *(adapter if lora else ()), "stages.instruct.max_length=400", "stages.instruct.pack=true",
        *(f"stages.{s}.{x}" for s in ("align", "instruct")
          for x in (f"workers={workers}", "accumulate=2", "checkpoint_every=2")),
    )  # fmt: skip
    train(recipe, tmp_path / "whole")
    rng, real = random.Random(workers + 2 * lora), next_token.next_token_losses
    for i in range(RESUMES):
        calls, stop = -PROBES, rng.randint(1, 24)

        def losses(model: Any, batch: Any, stop: int = stop) -> Any:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise KeyboardInterrupt
            return real(model, batch)

        with monkeypatch.context() as patch:
            patch.setattr(next_token, "next_token_losses", losses)
            with pytest.raises(KeyboardInterrupt):
                train(recipe, tmp_path / f"cut{i}")
        train(recipe, tmp_path / f"cut{i}", resume=True)
        same_run(tmp_path / "whole", tmp_path / f"cut{i}")

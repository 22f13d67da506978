"""Disks that are full, read-only or broken: the error says what to do, the last checkpoint is whole, and the run goes on.

Real ones where this user may mount a file system.
"""

from __future__ import annotations

import errno
import gc
import os
import re
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import faults
import pytest
from faults import (
    at_step,
    in_own_mounts,
    lines,
    mount,
    mount_or_skip,
    same_run,
    step_of,
    tiny,
    train,
)

from sensorium.core.errors import CheckpointError, ConfigError
from sensorium.training import disk, tensor_file
from sensorium.training.config import Recipe

OFTEN = "stages.align.checkpoint_every=1"
SAVED = "go on with --resume: the last checkpoint is whole"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(tiny(OFTEN), folder)
    return folder


def failure(recipe: Recipe, folder: Path, *, resume: bool = False) -> str:
    """What a run says whose disk fails."""
    with pytest.raises(CheckpointError) as error:
        train(recipe, folder, resume=resume)
    return str(error.value)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_failing_disk_stops_the_run_and_leaves_the_last_checkpoint(
    code: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = os.write, {"files": 0}

    class Failing:
        """The system's own, with a disk that fails within the third checkpoint."""

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def write(self, descriptor: int, piece: memoryview) -> int:
            written["files"] += os.lseek(descriptor, 0, os.SEEK_CUR) == 0
            if written["files"] == 8:
                raise OSError(code, os.strerror(code))
            return real(descriptor, piece)

    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, "os", Failing())
        with pytest.raises(CheckpointError, match=rf"optimiser\.safetensors.*{os.strerror(code)}.* bytes are needed, .* are free"):
            train(tiny(OFTEN), tmp_path / "cut")
    assert not list((tmp_path / "cut").glob(".*"))
    assert step_of(tmp_path / "cut") == (0, 2)
    train(tiny(OFTEN), tmp_path / "cut", resume=True)
    same_run(whole, tmp_path / "cut")


def fill(folder: Path) -> None:
    with (folder / "fill").open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(4096))


class Memory:
    """A disk of 64 MB in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mount_or_skip("-t", "tmpfs", "-o", "size=64m", "tmpfs", folder)

    def replug(self) -> None:
        """What is in memory is what there is."""


class Full(Memory):
    said = (r"run/\.checkpoint\.\w+\.tmp/\w+\.\w+: .*No space left on device", r"run/recipe\.yaml: .*No space left on device")

    def fail(self) -> None:
        fill(self.folder)

    def fail_more(self) -> None:
        """It stays full."""


class ReadOnly(Memory):
    # Whatever the writer was at: it works beside the training.
    said = (r"run/\.?checkpoint\S*: .*Read-only file system", r"run/log\.jsonl: .*Read-only file system")

    def fail(self) -> None:
        # The log is open, which keeps the disk from it, but not its folder.
        mount("--bind", self.folder, self.folder)
        until = time.monotonic() + 5
        while True:
            try:
                return mount("-o", "remount,bind,ro", self.folder)
            except subprocess.CalledProcessError:
                # A checkpoint's file was begun between the two, and keeps it from that until it is whole.
                if time.monotonic() > until:
                    raise

    def fail_more(self) -> None:
        subprocess.run(["umount", self.folder], check=True)
        mount("-o", "remount,ro", self.folder)


class Broken:
    """ext4 that its kernel makes read-only, whatever is open, as it does where a disk fails."""

    said = (r"run/(log\.jsonl|\.?checkpoint.*): .*(Input/output error|Read-only file system)",
            r"run/log\.jsonl: .*Read-only file system")  # fmt: skip

    def __init__(self, folder: Path) -> None:
        self.folder, self.image = folder, folder.with_name("image")
        with self.image.open("wb") as stream:
            stream.truncate(64 << 20)
        if not shutil.which("mkfs.ext4"):
            pytest.skip("there is no mkfs.ext4")
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)
        mount_or_skip("-o", "loop,errors=remount-ro", self.image, folder)

    def fail(self) -> None:
        mount("-o", "remount,abort", self.folder)

    def fail_more(self) -> None:
        """It stays read-only."""

    def replug(self) -> None:
        """Only what was safe on it comes back."""
        gc.collect()  # What failed may still hold a checkpoint's file.
        subprocess.run(["umount", self.folder], check=True)
        mount("-o", "loop", self.image, self.folder)


@pytest.mark.parametrize("kind", [Full, ReadOnly, Broken])
def test_a_disk_that_really_fails(
    kind: type[Full | ReadOnly | Broken], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of a run, and still so when it is to go on; in a file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def work() -> list[str]:
        own = kind(folder)
        at_step(4, own.fail, monkeypatch)
        said = [failure(tiny(OFTEN), folder / "run")]
        own.fail_more()
        said.append(failure(tiny(OFTEN), folder / "run", resume=True))
        own.replug()
        shutil.copytree(folder / "run", tmp_path / "run")
        return said

    said = in_own_mounts(work)
    for text, expected in zip(said, kind.said, strict=True):
        assert re.search(expected, text), text
        assert text.endswith(SAVED)
    assert step_of(tmp_path / "run") in {(0, 2), (0, 3), (0, 4)}
    train(tiny(OFTEN), tmp_path / "run", resume=True)
    assert not list((tmp_path / "run").glob(".*"))
    same_run(whole, tmp_path / "run")


def test_a_log_whose_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There alone: a line that is written by half is taken back, and its step made again."""
    recipe = tiny(OFTEN, "stages.align.steps=24")
    train(recipe, tmp_path / "whole")
    run, small = tmp_path / "run", tmp_path / "small"
    run.mkdir()
    small.mkdir()
    (run / "log.jsonl").symlink_to(small / "log.jsonl")

    def work() -> str:
        mount_or_skip("-t", "tmpfs", "-o", "size=4k", "tmpfs", small)
        said = failure(recipe, run)
        shutil.copytree(run, tmp_path / "cut")
        return said

    said = in_own_mounts(work)
    assert "log.jsonl: cannot be written: No space left on device" in said
    assert said.endswith(SAVED)
    assert not (tmp_path / "cut" / "log.jsonl").read_bytes().endswith(b"\n")
    stage, step = step_of(tmp_path / "cut")
    assert (stage, step) == (0, len(lines(tmp_path / "cut")))
    train(recipe, tmp_path / "cut", resume=True)
    same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_disk_with_no_room_for_the_model(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is trained and saved as a checkpoint: only the model is to be written again."""
    folder, real = tmp_path / "disk", faults.save_model
    folder.mkdir()

    def filling(*arguments: Any) -> None:
        fill(folder)
        real(*arguments)

    def work() -> str:
        Memory(folder)
        monkeypatch.setattr(faults, "save_model", filling)
        said = failure(tiny(OFTEN), folder / "run")
        shutil.copytree(folder / "run", tmp_path / "run")
        return said

    said = in_own_mounts(work)
    assert f"{folder / 'run' / 'model'}: cannot be written: " in said
    assert "No space left on device" in said
    assert said.endswith(SAVED)
    assert {x.name for x in (tmp_path / "run").iterdir()} == {"checkpoint", "checkpoint.1", "log.jsonl", "recipe.yaml"}
    train(tiny(OFTEN), tmp_path / "run", resume=True)
    same_run(whole, tmp_path / "run")


def test_too_small_a_disk_is_refused_before_step_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny(OFTEN, "keep_checkpoints=2")
    train(recipe, tmp_path / "whole")
    sizes = [sum(f.stat().st_size for f in x.iterdir()) for x in (tmp_path / "whole").glob("checkpoint*")]
    assert len(sizes) == 2
    monkeypatch.setattr(disk, "free_bytes", lambda path: int(2.8 * max(sizes)))
    with pytest.raises(ConfigError, match=r"2 are kept.*keep_checkpoints"):
        train(recipe, tmp_path / "a")
    assert lines(tmp_path / "a") == []
    # The estimate is close: what is written is a little more, by headers.
    monkeypatch.setattr(disk, "free_bytes", lambda path: 3 * max(sizes))
    train(recipe, tmp_path / "b")
    # What a run holds already is not asked for twice.
    monkeypatch.setattr(disk, "free_bytes", lambda path: int(1.1 * max(sizes)))
    train(recipe, tmp_path / "b", resume=True)

"""Checkpoints in shares: rows put together again for any number of readers, whole or not taken."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sensorium.core.atomic import staging_folder, versions
from sensorium.core.errors import CheckpointError
from sensorium.training import shares
from sensorium.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sensorium.training.shares import Joined, Share, collect, rows_of

WHOLE = {"matrix": torch.arange(35.0).view(7, 5), "half": torch.arange(4.0).bfloat16(), "thin": torch.ones(1, 3)}
SMALL = {"scale": torch.tensor(2.5)}


def share(folder: Path, rank: int, world: int, step: float = 0) -> Share:
    """What a process would write: torch gives each as many rows, the last ones fewer or none."""
    pieces: dict[str, Tensor] = {}
    cuts: dict[str, list[int]] = {}
    for name, value in WHOLE.items():
        each = -(-len(value) // world)
        start = min(len(value), rank * each)
        pieces[name], cuts[name] = value[start : start + each] + step, [start, *value.shape]
    return Share(folder, rank, world, {"weights": pieces | ({} if rank else SMALL), "optimiser": {}}, {"weights": cuts})


def save(folder: Path, step: int, world: int) -> None:
    staged = staging_folder(folder)
    others = [threading.Thread(target=share(staged, rank, world, step).write) for rank in range(1, world)]
    for other in others:
        other.start()
    empty: dict[str, Tensor] = {}
    save_checkpoint(folder, Checkpoint(stage=0, step=step, counts=[step], log_bytes=0, precision="fp32", weights=empty, optimiser=empty,
                    rng={"torch": torch.get_rng_state()}, recipe={}, data=[[1]]), share=share(staged, 0, world, step))  # fmt: skip
    for other in others:
        other.join()


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_any_number_of_readers_finds_its_rows(world: int, tmp_path: Path) -> None:
    save(tmp_path / "checkpoint", 1, world)
    found = load_checkpoint(tmp_path / "checkpoint")
    assert found is not None
    assert set(found.weights) == {*WHOLE, *SMALL}
    assert torch.equal(found.weights["scale"], SMALL["scale"])
    for name, value in WHOLE.items():
        assert torch.equal(found.weights[name], value + 1)
        assert found.weights[name].dtype == value.dtype
        for start in range(len(value) + 1):
            for stop in range(start, len(value) + 1):
                assert torch.equal(rows_of(found.weights, name, start, stop), (value + 1)[start:stop])


@pytest.mark.parametrize("name", ["weights.0", "weights.1", "optimiser.1"])
def test_a_damaged_share_is_named_and_the_one_before_is_taken(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "checkpoint"
    for step in (1, 2, 3):
        save(folder, step, 2)
    assert [json.loads((x / "state.json").read_text())["step"] for x in versions(folder)] == [3, 2]
    file = folder / f"{name}.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    found = load_checkpoint(folder)
    assert found is not None
    assert found.step == 2
    assert name in capsys.readouterr().err


def test_a_share_that_does_not_come_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoint"
    save(folder, 1, 2)
    monkeypatch.setattr(shares, "GRACE_S", 0.1)
    mine = share(staging_folder(folder), 0, 2)
    mine.failed.set()
    empty: dict[str, Tensor] = {}
    second = Checkpoint(stage=0, step=2, counts=[2], log_bytes=0, precision="fp32", weights=empty, optimiser=empty,
                        rng={}, recipe={}, data=[[1]])  # fmt: skip
    with pytest.raises(CheckpointError, match="process 1 did not write its share"):
        save_checkpoint(folder, second, share=mine)
    assert [x.name for x in tmp_path.iterdir()] == ["checkpoint"]
    found = load_checkpoint(folder)
    assert found is not None
    assert found.step == 1


def test_a_share_that_cannot_be_written_is_told_to_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = staging_folder(tmp_path / "checkpoint")
    real = shares.write_tensors

    def full(path: Path, tensors: dict[str, Tensor]) -> str:
        if path.name == "optimiser.1.safetensors":
            raise OSError(28, "No space left on device", str(path))
        return real(path, tensors)

    monkeypatch.setattr(shares, "write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        share(staged, 1, 2).write()
    mine = share(staged, 0, 2)
    mine.write()
    with pytest.raises(CheckpointError, match=r"process 1 could not write its share of the checkpoint: .*No space left"):
        collect(mine)


def test_a_share_has_nothing_to_do_once_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process may give the folder its name before the second one comes to breathe."""
    staged = staging_folder(tmp_path / "checkpoint")
    real = Path.replace

    def taken(self: Path, target: Path) -> Path:
        there = real(self, target)
        if there.name == "share.1.json":
            staged.rename(tmp_path / "checkpoint")
        return there

    monkeypatch.setattr(Path, "replace", taken)
    share(staged, 1, 2).write()
    assert [x.name for x in tmp_path.iterdir()] == ["checkpoint"]
    assert sorted(x.name for x in (tmp_path / "checkpoint").iterdir()) == [
        "optimiser.1.safetensors", "share.1.json", "weights.1.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("starts", [[0], [0, 1], [1, 3], [-2, 2]])
def test_pieces_that_make_no_whole_are_refused(starts: list[int]) -> None:
    """Too few rows, rows twice, and rows beside the whole."""
    with pytest.raises(CheckpointError, match="the pieces of w do not make a whole"):
        Joined([{"w": torch.zeros(2, 3)} for _ in starts], [{"w": [start, 4, 3]} for start in starts])

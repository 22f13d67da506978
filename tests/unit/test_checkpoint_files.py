"""Checkpoint files: whole or not taken, and the one before where the newest is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sensorium.core.atomic import rotating_folder, versions
from sensorium.core.errors import CheckpointError
from sensorium.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sensorium.training.tensor_file import DTYPES, write_tensors


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(
        stage=0, step=step, counts=[step], log_bytes=0, precision="fp32",
        weights={"w": torch.full((3, 5), float(step)), "half": torch.ones(2, dtype=torch.bfloat16)},
        optimiser={"w|step": torch.tensor(float(step))}, rng={"torch": torch.get_rng_state()},
        recipe={"name": "x"}, data=[[4, 2]],
    )  # fmt: skip


def step_of(folder: Path) -> int:
    found = load_checkpoint(folder)
    assert found is not None
    assert torch.equal(found.weights["w"], torch.full((3, 5), float(found.step)))
    return found.step


def test_tensor_files_are_safetensors(tmp_path: Path) -> None:
    made: dict[str, Any] = {str(dtype): torch.arange(6).to(dtype) for dtype in DTYPES}
    made |= {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4), "across": torch.arange(6.0).view(2, 3).t()}
    write_tensors(tmp_path / "a", made)
    read = load_file(tmp_path / "a")
    assert set(read) == set(made)
    for name, value in made.items():
        assert read[name].dtype == value.dtype
        assert read[name].shape == value.shape
        assert torch.equal(read[name].float(), value.float())


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_ones_are_kept(keep: int, tmp_path: Path) -> None:
    for step in range(1, 6):
        save_checkpoint(tmp_path / "checkpoint", checkpoint(step), keep=keep)
    steps = [json.loads((x / "state.json").read_text())["step"] for x in versions(tmp_path / "checkpoint")]
    assert steps == [5, 4, 3][:keep]
    assert len(list(tmp_path.iterdir())) == keep


@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.safetensors", "rng.safetensors", "state.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_any_damage_is_noticed_and_named(name: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, checkpoint(1))
    save_checkpoint(folder, checkpoint(2))
    file = folder / name
    content = bytearray(file.read_bytes())
    if how == "flip":
        # In state.json: 2 becomes 3, which is as good JSON as before.
        content[content.index(b'"step": 2') + 8 if name == "state.json" else len(content) - 1] ^= 1
    file.write_bytes(content[:-3] if how == "cut" else content)
    if how == "gone":
        file.unlink()
    assert step_of(folder) == 1
    assert name in capsys.readouterr().err
    # It goes on from there, and the damaged one never comes back.
    save_checkpoint(folder, checkpoint(3))
    assert step_of(folder) == 3
    assert [x.name for x in versions(folder)] == ["checkpoint", "checkpoint.1"]
    (folder / name).unlink()
    assert step_of(folder) == 1


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    for step in (1, 2):
        save_checkpoint(folder, checkpoint(step))
    for one in versions(folder):
        (one / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"checkpoint/weights\.safetensors"):
        load_checkpoint(folder)


def test_checkpoints_without_hashes_still_load(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, checkpoint(1))
    save_file({"w": torch.ones(3, 5)}, folder / "weights.safetensors")
    state = json.loads((folder / "state.json").read_text())
    for key in ("sha256", "own_sha256", "spikes"):
        del state[key]
    (folder / "state.json").write_text(json.dumps(state | {"format": 1}))
    assert step_of(folder) == 1
    (folder / "state.json").write_text(json.dumps(state | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        load_checkpoint(folder)


@pytest.mark.parametrize("renames", range(4))
def test_a_crash_between_any_two_renames(renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoint"
    for step in (1, 2, 3):
        save_checkpoint(folder, checkpoint(step), keep=3)
    real, left = Path.rename, renames

    def rename(self: Path, target: Any) -> Path:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(folder, checkpoint(4), keep=3)
    assert step_of(folder) == 3
    save_checkpoint(folder, checkpoint(4), keep=3)
    assert [step_of(x) for x in versions(folder)] == [4, 3, 2]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint", checkpoint(1))

    def fail() -> None:
        with rotating_folder(tmp_path / "checkpoint", 2) as target:
            (target / "half").write_text("x")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert [x.name for x in tmp_path.iterdir()] == ["checkpoint"]
    assert step_of(tmp_path / "checkpoint") == 1

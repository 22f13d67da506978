"""What a stage needs in memory is measured, compared with what there is, and said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sensorium.cli.training import print_plan
from sensorium.core.errors import ConfigError
from sensorium.interop.assemble import build_pretrained
from sensorium.recipes import RECIPES
from sensorium.training import memory, preflight
from sensorium.training.memory import Memory, SavedTensors, memory_of
from sensorium.training.preflight import StagePlan
from sensorium.training.run import plan_recipe
from sensorium.training.trainer import TrainerOptions


def plan(tmp_path: Path, *overrides: str) -> list[StagePlan]:
    recipe = RECIPES.find("tiny")().override(overrides)
    options = TrainerOptions(folder=tmp_path / "a", cache=tmp_path / "cache")
    return plan_recipe(recipe, lambda: build_pretrained(recipe.model), options)


def test_what_backward_reads_is_counted_once() -> None:
    layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    with SavedTensors(layers) as saved:
        layers(torch.randn(4, 8))
    # The input, and what the ReLU gives, which the last layer reads too; no weights.
    assert saved.total == 4 * 8 * 4 + 4 * 16 * 4
    assert saved.largest == 4 * 16 * 4


def test_what_backward_reads_is_not_kept() -> None:
    layers = nn.Sequential(*(nn.Linear(64, 64) for _ in range(20)))
    with SavedTensors(layers) as saved:
        layers(torch.randn(32, 64))
    # Memory that is freed is handed out again: every layer's input counts all the same.
    assert saved.total == 20 * 32 * 64 * 4


def test_a_frozen_part_keeps_nothing() -> None:
    layers = nn.Linear(8, 16).requires_grad_(False)
    with SavedTensors(layers) as saved:
        layers(torch.randn(4, 8))
    assert saved.total == 0


def test_a_tower_that_learns_needs_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than its gradients and moments: its activations count."""
    seen: list[tuple[int, int]] = []
    state, activations = preflight.state_bytes, preflight.activation_bytes

    def noted_state(model: nn.Module, learning: int, *, moments: int) -> int:
        seen.append((learning, state(model, learning)))
        return seen[-1][1]

    def noted_activations(saved: SavedTensors, device: torch.device) -> int:
        needed = activations(saved, device)
        seen[-1] = (seen[-1][0], seen[-1][1] + needed)
        return needed

    monkeypatch.setattr(preflight, "state_bytes", noted_state)
    monkeypatch.setattr(preflight, "activation_bytes", noted_activations)
    tower = "stages.align.learns=[{part: encoders.image, lr: 0.1}, {part: projectors.image, lr: 0.1}]"
    plan(tmp_path)
    plan(tmp_path, tower)
    (learning, frozen), _, (more_learning, learns), _ = seen
    tokens = 4 * 16  # four pictures of 4 x 4 patches
    assert learns - frozen > 12 * (more_learning - learning) + tokens * 32 * 3 * 4


def test_too_little_memory_is_said_and_far_too_little_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(p.available_mb and p.warning is None for p in plan(tmp_path))
    monkeypatch.setattr(preflight, "memory_of", lambda device: Memory(1 << 40, 0))
    monkeypatch.setattr(preflight, "state_bytes", lambda *_, moments: 5000 << 20)
    monkeypatch.setattr(preflight, "activation_bytes", lambda *_: 0)
    short = plan(tmp_path)[0]
    assert short.warning is not None
    assert "needs about 5,000 MB" in short.warning
    assert short.to_json()["warning"] == short.warning
    print_plan(short)
    assert "warning: stage align" in capsys.readouterr().err
    monkeypatch.setattr(preflight, "memory_of", lambda device: Memory(3000 << 20, 0))
    assert plan(tmp_path)[0].warning
    monkeypatch.setattr(preflight, "memory_of", lambda device: Memory(2000 << 20, 0))
    with pytest.raises(ConfigError, match=r"stage align: .*5,000 MB.*2,000 MB.*lower batch_size"):
        plan(tmp_path)


def test_a_group_of_processes_may_have_less_than_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cpu")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    machine = memory_of(device)
    assert machine is not None
    assert 0 < machine.free < machine.total
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000\n")
    assert memory_of(device) is not None
    (tmp_path / "memory.max").write_text("8000\n")
    (tmp_path / "memory.stat").write_text("anon 4000\nfile 1000\n")
    assert memory_of(device) == Memory(8000, 4000)

"""Training: resumable at any moment bit for bit, honest about bad rows and bad numbers."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.core.errors import CheckpointError, ConfigError, DataError, NumericsError
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.nn.pretrained import read_file
from sensorium.recipes import RECIPES
from sensorium.training.config import Recipe
from sensorium.training.log import read_log
from sensorium.training.run import plan_recipe, train_recipe
from sensorium.training.trainer import Trainer, TrainerOptions

KILLS = 30 if os.environ.get("SENSORIUM_FAULTS") == "full" else 8


def tiny(*overrides: str) -> Recipe:
    return RECIPES.find("tiny")().override(overrides)


def train(recipe: Recipe, folder: Path, *, resume: bool = False) -> None:
    options = TrainerOptions(folder=folder, cache=folder.parent / "cache", resume=resume)
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)


def curve(folder: Path) -> list[tuple[Any, ...]]:
    return [(x["stage"], x["step"], x["loss"], x["grad_norm"]) for x in read_log(folder / "log.jsonl")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_file(folder / "model" / "model.safetensors")


def same_run(one: Path, two: Path) -> None:
    assert curve(one) == curve(two)
    a, b = weights(one), weights(two)
    assert set(a) == set(b)
    for name in a:
        assert torch.equal(a[name], b[name]), name


def killed_after(seconds: float, recipe: Recipe, folder: Path) -> bool:
    """Train in a forked child and kill it; True if it finished before."""
    child = os.fork()
    if child == 0:
        try:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 2)
            train(recipe, folder, resume=True)
            os._exit(0)
        except BaseException:
            os._exit(1)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def test_kill_at_random_moments_changes_nothing(tmp_path: Path) -> None:
    """`kill -9` at random moments of a run that saves at every step: each resume goes on
    to the very curve and weights of a run that nobody disturbed."""
    recipe = tiny("stages.align.checkpoint_every=1", "stages.instruct.checkpoint_every=1",
                  "stages.align.workers=1", "stages.instruct.workers=3")  # fmt: skip
    train(tiny(), tmp_path / "warm")  # Imports are not part of a run.
    start = time.monotonic()
    train(recipe, tmp_path / "whole")
    whole_s = time.monotonic() - start
    rng = random.Random(11)
    kills, run = 0, 0
    while kills < KILLS:
        folder = tmp_path / f"killed{run}"
        # A run is killed several times before it may end, so that resumed runs die too.
        for attempt in range(4):
            start = time.monotonic()
            if killed_after(rng.uniform(0.1, 1.1) * whole_s, recipe, folder):
                # The first run may have shared the machine; kills at its moments would come too late for ever.
                whole_s = whole_s if attempt else min(whole_s, time.monotonic() - start)
                break
            kills += 1
        train(recipe, folder, resume=True)
        same_run(tmp_path / "whole", folder)
        run += 1
    assert run >= 2


def test_a_packed_run_stopped_within_a_window_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint says which batches of the window were taken and what was left for it."""
    recipe = tiny("stages.align.pack=true", "stages.align.batch_size=2", "stages.align.steps=14",
                  "stages.instruct.steps=1", "stages.align.workers=0", "stages.align.max_length=128")  # fmt: skip
    train(recipe, tmp_path / "a")
    real, plans = Trainer.log, list[list[int]]()

    def stopping(self: Trainer, line: dict[str, Any]) -> None:
        real(self, line)
        if line["step"] in (3, 7, 11) and line["stage"] == "align" and line["step"] not in stops:
            stops.append(line["step"])
            raise InterruptedError

    stops: list[int] = []
    monkeypatch.setattr(Trainer, "log", stopping)
    for begun in (False, True, True):
        with pytest.raises(InterruptedError):
            train(recipe, tmp_path / "b", resume=begun)
        saved = json.loads((tmp_path / "b" / "checkpoint" / "state.json").read_text())
        plans.append(saved["plan"])
    assert all(plan[0] for plan in plans)
    train(recipe, tmp_path / "b", resume=True)
    same_run(tmp_path / "a", tmp_path / "b")


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    train(tiny(), tmp_path / "a")
    before = curve(tmp_path / "a"), weights(tmp_path / "a")
    train(tiny(), tmp_path / "a", resume=True)
    assert curve(tmp_path / "a") == before[0]
    assert all(torch.equal(v, before[1][k]) for k, v in weights(tmp_path / "a").items())


def test_a_begun_run_is_not_overwritten(tmp_path: Path) -> None:
    train(tiny("stages.align.steps=1", "stages.instruct.steps=1"), tmp_path / "a")
    with pytest.raises(CheckpointError, match="--resume"):
        train(tiny("stages.align.steps=1", "stages.instruct.steps=1"), tmp_path / "a")
    with pytest.raises(CheckpointError, match="another recipe"):
        train(tiny("stages.align.steps=2"), tmp_path / "a", resume=True)


def test_a_stage_that_has_not_begun_may_be_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tiny("stages.instruct.steps=3", "stages.instruct.seed=5")
    train(changed, tmp_path / "whole")
    with monkeypatch.context() as patch:
        run_stage = Trainer._run_stage

        def stop_at_the_second(self: Trainer, index: int, parts: Any) -> None:
            if index == 1:
                raise KeyboardInterrupt
            run_stage(self, index, parts)

        patch.setattr(Trainer, "_run_stage", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(), tmp_path / "cut")
    with pytest.raises(CheckpointError, match="first 1 stages"):
        train(tiny("stages.align.seed=5"), tmp_path / "cut", resume=True)
    train(changed, tmp_path / "cut", resume=True)
    same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("workers", [1, 4])
def test_batches_do_not_depend_on_workers(workers: int, tmp_path: Path) -> None:
    train(tiny(), tmp_path / "two")
    train(tiny(f"stages.align.workers={workers}", f"stages.instruct.workers={workers}"),
          tmp_path / "other")  # fmt: skip
    same_run(tmp_path / "two", tmp_path / "other")


def test_cached_features_change_nothing_on_second_use(tmp_path: Path) -> None:
    recipe = tiny("stages.align.cache_features=true", "stages.instruct.cache_features=true")
    train(recipe, tmp_path / "first")
    assert list((tmp_path / "cache").rglob("*.bin"))
    train(recipe, tmp_path / "second")
    same_run(tmp_path / "first", tmp_path / "second")


def test_frozen_parts_do_not_move(tmp_path: Path) -> None:
    recipe = tiny("stages.instruct.learns=[{part: projectors.image, lr: 0.01}]")
    torch.manual_seed(recipe.seed)
    before = build_pretrained(recipe.model)[0].state_dict()
    train(recipe, tmp_path / "a")
    after = weights(tmp_path / "a")
    for name, value in after.items():
        moved = not torch.equal(value, before[name])
        assert moved == name.startswith("projectors."), name


def test_last_blocks_learn_alone(tmp_path: Path) -> None:
    recipe = tiny("stages.instruct.learns=[{part: encoders.image, lr: 0.01, last_blocks: 1}]")
    torch.manual_seed(recipe.seed)
    before = build_pretrained(recipe.model)[0].state_dict()
    train(recipe, tmp_path / "a")
    moved = {n for n, v in weights(tmp_path / "a").items() if not torch.equal(v, before[n])}
    tower = {n for n in moved if n.startswith("encoders.")}
    assert tower
    assert all(".2." in name for name in tower), sorted(tower)


def test_log_and_curve_are_written(tmp_path: Path, curve_drawn: None) -> None:
    train(tiny(), tmp_path / "a")
    lines = read_log(tmp_path / "a" / "log.jsonl")
    assert [(x["stage"], x["step"]) for x in lines] == [
        (s, i) for s in ("align", "instruct") for i in range(1, 7)
    ]
    assert (tmp_path / "a" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert Recipe.load(tmp_path / "a" / "recipe.yaml") == tiny()


def rows_file(tmp_path: Path, rows: list[Any]) -> Path:
    from PIL import Image

    Image.new("RGB", (32, 32), (90, 10, 10)).save(tmp_path / "ok.png")
    Image.new("RGB", (300, 300), (90, 10, 10)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return path


def row(image: str | None = "ok.png") -> dict[str, Any]:
    content: list[Any] = [{"type": "image", "image": image}] if image else []
    return {"messages": [{"role": "user", "content": [*content, {"type": "text", "text": "q"}]},
                         {"role": "assistant", "content": "answer"}]}  # fmt: skip


def on_file(path: Path, *more: str) -> Recipe:
    source = f"[{{kind: file, path: {path}, format: samples}}]"
    return tiny(f"stages.align.data={source}", f"stages.instruct.data={source}", *more)


def test_bad_rows_stop_training_by_name(tmp_path: Path) -> None:
    path = rows_file(tmp_path, [row(), row("cut.jpg"), row("gone.png"), row()])
    with pytest.raises(DataError, match=r"rows\.jsonl:[23]"):
        train(on_file(path), tmp_path / "a")


def test_bad_rows_are_skipped_when_asked_and_listed(tmp_path: Path) -> None:
    path = rows_file(tmp_path, [row(), row("cut.jpg"), row("gone.png"), "{oops", row(), row(None)])
    skip = ("stages.align.on_bad_row=skip", "stages.instruct.on_bad_row=skip")
    train(on_file(path, *skip), tmp_path / "a")
    lines = read_log(tmp_path / "a" / "log.jsonl")
    said = " ".join(p for x in lines for p in x.get("skipped_rows", ()))
    assert "rows.jsonl:2" in said
    assert "rows.jsonl:3" in said
    assert "rows.jsonl:4" in said
    assert all(x["loss"] is not None for x in lines)


def test_resume_notices_changed_data(tmp_path: Path) -> None:
    path = rows_file(tmp_path, [row(), row(), row()])
    train(on_file(path), tmp_path / "a")
    path.write_text(path.read_text() + "\n" + json.dumps(row()))
    with pytest.raises(CheckpointError, match="data changed"):
        train(on_file(path), tmp_path / "a", resume=True)


def test_all_rows_bad_ends_with_a_reason(tmp_path: Path) -> None:
    path = rows_file(tmp_path, [row("gone.png"), row("cut.jpg")])
    skip = ("stages.align.on_bad_row=skip", "stages.instruct.on_bad_row=skip")
    with pytest.raises(DataError, match="every row"):
        train(on_file(path, *skip), tmp_path / "a")


def test_text_rows_among_picture_rows(tmp_path: Path) -> None:
    path = rows_file(tmp_path, [row(None), row(), row(None)])
    train(on_file(path), tmp_path / "a")
    assert all(x[2] is not None for x in curve(tmp_path / "a"))


def test_not_finite_skips_and_then_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sensorium.training.objectives import next_token

    calls = {"n": 0}
    real = next_token.next_token_losses

    def poisoned(model: Any, batch: Any) -> Any:
        losses = real(model, batch)
        calls["n"] += 1
        if calls["n"] in (4, 6, 7, 8):  # after two probes: one alone, then three in a row
            losses.total = losses.total * float("nan")
        return losses

    monkeypatch.setattr(next_token, "next_token_losses", poisoned)
    with pytest.raises(NumericsError, match="3 steps in a row"):
        train(tiny("stages.align.checkpoint_every=1"), tmp_path / "a")
    lines = read_log(tmp_path / "a" / "log.jsonl")
    assert [x["loss"] is None for x in lines] == [False, True, False, True, True, True]
    for value in read_file(tmp_path / "a" / "checkpoint" / "weights.safetensors").values():
        assert torch.isfinite(value).all()


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("stages.instruct.max_length=4000", "positions"),
        ("stages.instruct.learns=[{part: projector, lr: 1}]", r"did you mean 'projectors\.image'"),
        ("stages.instruct.learns=[{part: adapter, lr: 1}]", "no part 'adapter'"),
        ("stages.instruct.learns=[{part: backbone, lr: 1, last_blocks: 9}]", "last_blocks: 9"),
        ("stages.instruct.data=[{kind: file, path: nowhere.jsonl}]", "nowhere.jsonl"),
        ("stages.instruct.data=[{kind: scenes, take: 0}]", "take: 0"),
        ("stages.instruct.max_length=16", "raise max_length"),
        ("stages.instruct.cache_features=true", "ok"),
    ],
)
def test_later_stages_are_checked_before_step_one(
    override: str, reason: str, tmp_path: Path
) -> None:
    options = TrainerOptions(folder=tmp_path / "a", cache=tmp_path / "cache")
    if reason == "ok":
        recipe = tiny(override)
        plans = plan_recipe(recipe, lambda: build_pretrained(recipe.model), options)
        assert [plan.steps for plan in plans] == [6, 6]
        return
    with pytest.raises((ConfigError, DataError), match=reason) as caught:
        train(tiny(override), tmp_path / "a")
    assert "instruct" in str(caught.value)
    assert not curve(tmp_path / "a") if (tmp_path / "a" / "log.jsonl").exists() else True

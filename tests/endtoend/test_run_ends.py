"""However a run ends, its records are whole, and it goes on as if it had never ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sensorium.core.errors import CheckpointError, NumericsError
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.recipes import RECIPES
from sensorium.training.log import TrainingLog, read_log
from sensorium.training.objectives import next_token
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions

PROBES = 2


def train(folder: Path, *overrides: str, resume: bool = False) -> None:
    recipe = RECIPES.find("tiny")().override(["stages.instruct.steps=1", *overrides])
    options = TrainerOptions(folder=folder, cache=folder.parent / "cache", resume=resume)
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)


@pytest.fixture
def disturb(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int], int | None], None]:
    """Sets which steps of the next run give no number, and before which one Ctrl-C is hit."""
    real = next_token.next_token_losses

    def set_up(bad: set[int], stop: int | None) -> None:
        calls = {"n": -PROBES}

        def losses(model: Any, batch: Any) -> Any:
            calls["n"] += 1
            if calls["n"] == stop:
                raise KeyboardInterrupt
            made = real(model, batch)
            if calls["n"] in bad:
                made.total = made.total * float("nan")
            return made

        monkeypatch.setattr(next_token, "next_token_losses", losses)

    return set_up


def test_a_run_that_stops_early_leaves_log_and_curve(
    tmp_path: Path, disturb: Callable[..., None], monkeypatch: pytest.MonkeyPatch, curve_drawn: None
) -> None:
    logs: list[TrainingLog] = []
    real = TrainingLog.close
    monkeypatch.setattr(TrainingLog, "close", lambda self: (logs.append(self), real(self))[1])
    for name, bad, stop, error in (("nan", {3, 4, 5}, None, NumericsError),
                                   ("ctrl-c", set(), 3, KeyboardInterrupt)):  # fmt: skip
        disturb(bad, stop)
        with pytest.raises(error):
            train(tmp_path / name)
        assert logs.pop()._stream.closed
        assert (tmp_path / name / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_resumed_run_goes_on_counting_bad_steps(
    tmp_path: Path, disturb: Callable[..., None]
) -> None:
    folder, often = tmp_path / "a", "stages.align.checkpoint_every=1"
    disturb({2, 3}, 4)
    with pytest.raises(KeyboardInterrupt):
        train(folder, often)
    state = json.loads((folder / "checkpoint" / "state.json").read_text())
    assert (state["step"], state["bad_in_row"]) == (3, 2)
    disturb({1, 2, 3}, None)
    with pytest.raises(NumericsError):
        train(folder, often, resume=True)
    assert len(read_log(folder / "log.jsonl")) == 4
    # A checkpoint written before the count, and hashes, were part of it.
    del state["bad_in_row"]
    state["format"] = 1
    (folder / "checkpoint" / "state.json").write_text(json.dumps(state))
    disturb({1, 2, 3}, None)
    with pytest.raises(NumericsError):
        train(folder, often, resume=True)
    assert len(read_log(folder / "log.jsonl")) == 6


@pytest.mark.parametrize("more", [(), ("stages.align.pack=true",), ("stages.align.cache_features=true",)])
def test_what_max_length_cuts_is_in_the_log(
    more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "whole")
    assert "max_length" not in capsys.readouterr().err
    assert not any("truncated_tokens" in x for x in read_log(tmp_path / "whole" / "log.jsonl"))
    train(tmp_path / "cut", "stages.align.max_length=40", *more)
    lines = [x for x in read_log(tmp_path / "cut" / "log.jsonl") if x["stage"] == "align"]
    assert all(0 < x["truncated_samples"] <= x["samples"] for x in lines)
    assert all(x["truncated_tokens"] >= x["truncated_samples"] for x in lines)
    assert capsys.readouterr().err.count("max_length 40 cuts samples off") == 1


def test_a_checkpoint_outlives_new_options(tmp_path: Path, disturb: Callable[..., None]) -> None:
    """What a recipe could not say when the run began has its default; what it says still binds."""
    folder, often = tmp_path / "a", "stages.align.checkpoint_every=1"
    disturb(set(), 3)
    with pytest.raises(KeyboardInterrupt):
        train(folder, often)
    file = folder / "checkpoint" / "state.json"
    state = json.loads(file.read_text())
    # Of the format that had no hashes.
    state["format"] = 1
    lane = state["recipe"]["model"]["lanes"]["image"]
    del state["recipe"]["stages"][0]["on_bad_row"], lane["resolution"]
    for changed in ({"stride": 7}, {"kind": "gone"}):
        encoder = {"encoder": lane["encoder"] | changed}
        model = state["recipe"]["model"] | {"lanes": {"image": lane | encoder}}
        file.write_text(json.dumps(state | {"recipe": state["recipe"] | {"model": model}}))
        with pytest.raises(CheckpointError, match="another recipe"):
            train(folder, often, resume=True)
    file.write_text(json.dumps(state))
    disturb(set(), None)
    train(folder, often, resume=True)
    assert [x["step"] for x in read_log(folder / "log.jsonl")] == [1, 2, 3, 4, 5, 6, 1]

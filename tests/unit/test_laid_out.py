"""Training with frozen weights laid out: the same run, said in its plan, and only where memory has room for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_batches import tiny

from sensorium.interop.assemble import build_pretrained
from sensorium.model import laid_out
from sensorium.nn import frozen_linear, onednn
from sensorium.nn.onednn import has_onednn
from sensorium.training.fitting import ROOM, Fit
from sensorium.training.log import read_log
from sensorium.training.run import train_recipe
from sensorium.training.stage_run import StageRun
from sensorium.training.trainer import TrainerOptions


class CutOffError(Exception):
    """The test's own end of a run."""


FIT = Fit(rows=2, passes=1, recompute=False, needed=1000, why="fits")


@pytest.mark.skipif(not has_onednn(), reason="this build of torch has no oneDNN")
def test_a_run_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny()
    monkeypatch.setattr(frozen_linear, "SMALLEST", 1)
    monkeypatch.setattr(onednn, "FEWEST_ROWS", 1)
    products: list[bool] = []
    real = frozen_linear._Layouts.product

    def noted(self: frozen_linear._Layouts, *args: Any, back: bool) -> torch.Tensor:
        products.append(back)
        return real(self, *args, back=back)

    monkeypatch.setattr(frozen_linear._Layouts, "product", noted)

    def run(name: str, faster: bool) -> tuple[list[float], list[str]]:
        monkeypatch.setattr(laid_out, "onednn_is_faster", lambda: faster)
        said: list[str] = []
        options = TrainerOptions(folder=tmp_path / name, cache=tmp_path / f"cache-{name}", on_plan=lambda plan: said.append(plan.fit.describe()))
        train_recipe(recipe, lambda: build_pretrained(recipe.model), lambda *_: None, options)
        return [line["loss"] for line in read_log(tmp_path / name / "log.jsonl")], said

    plain, plans = run("plain", False)
    assert not products
    assert not any("laid out" in plan for plan in plans)
    ours, plans = run("ours", True)
    assert {*products} == {False, True}
    assert any("laid out" in plan for plan in plans)
    assert ours == pytest.approx(plain, abs=1e-4)


@pytest.mark.skipif(not has_onednn(), reason="this build of torch has no oneDNN")
def test_a_run_that_is_cut_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny("stages.align.steps=5", "stages.align.checkpoint_every=2", "stages.instruct.steps=2")
    monkeypatch.setattr(frozen_linear, "SMALLEST", 1)
    monkeypatch.setattr(onednn, "FEWEST_ROWS", 1)
    monkeypatch.setattr(laid_out, "onednn_is_faster", lambda: True)
    shown = StageRun._show

    def run(name: str, *, resume: bool = False) -> None:
        options = TrainerOptions(folder=tmp_path / name, cache=tmp_path / "cache", resume=resume)
        train_recipe(recipe, lambda: build_pretrained(recipe.model), lambda *_: None, options)

    def cut(self: StageRun, meter: Any, step: int) -> None:
        shown(self, meter, step)
        if step == 3:
            raise CutOffError

    run("whole")
    with monkeypatch.context() as patch:
        patch.setattr(StageRun, "_show", cut)
        with pytest.raises(CutOffError):
            run("cut")
    run("cut", resume=True)
    lines = [[(x["step"], x["loss"], x["grad_norm"]) for x in read_log(tmp_path / name / "log.jsonl")] for name in ("whole", "cut")]
    assert len(lines[0]) == 7
    assert lines[0] == lines[1]


def test_copies_change_nothing_else() -> None:
    assert FIT.with_copies(500, 10_000).needed == 1500
    assert "laid out" in FIT.with_copies(5 << 20, 1 << 30).describe()
    for kept in (FIT.with_copies(500, None), FIT.with_copies(500, round(1400 / ROOM)), FIT.with_copies(0, 10_000)):
        assert kept == FIT
        assert "laid out" not in kept.describe()
    again = Fit(rows=2, passes=1, recompute=True, needed=1000, why="as asked")
    assert again.with_copies(500, 10_000) == again

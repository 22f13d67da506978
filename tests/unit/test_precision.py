"""Half precision that a processor is not fast in becomes fp32, which is said once; a run that goes on stays with its answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sensorium.cli.training import print_plan
from sensorium.core.errors import ConfigError
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.recipes import RECIPES
from sensorium.training import precision
from sensorium.training.checkpoint import load_checkpoint
from sensorium.training.config import Recipe
from sensorium.training.plan import StagePlan
from sensorium.training.precision import choose_precision
from sensorium.training.run import plan_recipe, train_recipe
from sensorium.training.trainer import TrainerOptions

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SLOW, FAST = {torch.float32: 0.001, torch.bfloat16: 0.004}, {torch.float32: 0.001, torch.bfloat16: 0.0005}
BOTH = [f"stages.{name}.{key}" for name in ("align", "instruct") for key in ("precision=bf16", "steps=1")]


def measured(monkeypatch: pytest.MonkeyPatch, seconds: dict[torch.dtype, float] | None) -> list[torch.dtype]:
    """What is measured from here on, and a list of what was; None: measuring is an error."""
    seen: list[torch.dtype] = []

    def take(dtype: torch.dtype, device: torch.device) -> float:
        assert seconds is not None, "measured"
        seen.append(dtype)
        return seconds[dtype]

    monkeypatch.setattr(precision, "_seconds", take)
    return seen


def recipe(*overrides: str) -> Recipe:
    return RECIPES.find("tiny")().override([*BOTH, *overrides])


def plan(made: Recipe, folder: Path) -> list[StagePlan]:
    return plan_recipe(made, lambda: build_pretrained(made.model), TrainerOptions(folder / "a", folder / "cache", on_plan=print_plan))


def train(made: Recipe, folder: Path, *, resume: bool = False) -> None:
    options = TrainerOptions(folder / "run", folder / "cache", resume=resume, on_plan=print_plan)
    train_recipe(made, lambda: build_pretrained(made.model), save_model, options)


def test_a_slow_processor_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, SLOW)
    assert choose_precision("auto", CPU).precision == "fp32"
    assert choose_precision("auto", CPU).warning("align") is None
    chosen = choose_precision("bf16", CPU)
    assert chosen.precision == "fp32"
    said = chosen.warning("align") or ""
    for part in ("stage align", "fp32, not in bf16 as asked", "1.00 ms in fp32 and 4.00 ms in bf16", "keep_precision: true"):
        assert part in said
    measured(monkeypatch, None)
    assert choose_precision("bf16", CPU, insists=True).precision == "bf16"
    assert choose_precision("fp32", CPU).precision == "fp32"


def test_a_fast_processor_and_a_gpu_do_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, FAST)
    for asked in ("auto", "bf16"):
        assert choose_precision(asked, CPU).precision == "bf16"
        assert choose_precision(asked, CPU).warning("align") is None
    measured(monkeypatch, None)
    assert choose_precision("bf16", GPU).precision == "bf16"
    for has, wanted in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has: has)
        assert choose_precision("auto", GPU).precision == wanted
        assert choose_precision("bf16", GPU).precision == "bf16"


def test_the_plan_says_it_once_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = measured(monkeypatch, SLOW)
    plans = plan(recipe("stages.instruct.keep_precision=true"), tmp_path)
    assert len(seen) == 2, "measured once, in two formats"
    said = capsys.readouterr().err
    assert said.count("not in bf16 as asked") == 1
    assert "warning: stage align computes in fp32" in said
    assert "  bf16: as asked" in said
    assert said.count("  compile is off: the stage does not ask for it") == 2
    told = [one.to_json() for one in plans]
    assert [one["precision"] for one in told] == ["fp32", "bf16"]
    assert "stage align" in told[0]["precision_warning"]
    assert told[1]["precision_warning"] is None


@pytest.mark.parametrize(("first", "then", "kept"), [(SLOW, FAST, "fp32"), (FAST, SLOW, "bf16")])
def test_a_run_that_goes_on_keeps_its_format(
    first: dict[torch.dtype, float], then: dict[torch.dtype, float], kept: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    formats: list[str] = []
    real = precision.autocast
    monkeypatch.setattr("sensorium.training.stage_run.autocast", lambda form, device: formats.append(form) or real(form, device))
    measured(monkeypatch, first)
    train(recipe("stages.instruct.steps=2"), tmp_path)
    saved = load_checkpoint(tmp_path / "run" / "checkpoint")
    assert saved is not None
    assert saved.precision == kept
    began = len(formats)
    capsys.readouterr()
    seen = measured(monkeypatch, then)
    # The last stage is over; another one, which has not begun, follows.
    longer = recipe("stages.instruct.steps=2")
    more = longer.stages[1].model_copy(update={"name": "more"})
    train(longer.model_copy(update={"stages": (*longer.stages, more)}), tmp_path, resume=True)
    assert not seen, "the answer was known"
    assert len(formats) > began
    assert set(formats) == {kept}
    said = capsys.readouterr().err
    assert said.count(f"this run began in {kept}") == 3
    assert said.count("not in bf16 as asked") == (3 if kept == "fp32" else 0)


def test_there_must_be_something_to_keep() -> None:
    with pytest.raises(ConfigError, match=r"keep_precision is for precision: bf16 or fp32; auto"):
        recipe("stages.align.precision=auto", "stages.align.keep_precision=true")

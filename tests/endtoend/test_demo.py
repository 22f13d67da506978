"""The demo with a tiny model: the whole story once, and nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sensorium.cli import demo, evaluating, training
from sensorium.recipes import RECIPES

Demo = Callable[..., dict[str, Any]]


@pytest.fixture
def run_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Demo:
    """Runs the demo; its JSON, and how many evaluations it made."""
    short = ["stages.align.steps=1", "stages.instruct.steps=1"]
    recipe = RECIPES.find("tiny")().override(short)
    monkeypatch.setattr(training, "find_recipe", lambda name, overrides: recipe)
    real, made = evaluating.run_benchmarks, [0]

    def counted(*args: Any) -> list[Any]:
        made[0] += 1
        return real(*args)

    monkeypatch.setattr(evaluating, "run_benchmarks", counted)

    def run(limit: int = 1) -> dict[str, Any]:
        made[0] = 0
        demo.demo_command(str(tmp_path / "demo"), limit, as_json=True)
        return json.loads(capsys.readouterr().out) | {"evaluations": made[0]}

    return run


def test_a_second_demo_measures_nothing_again(run_demo: Demo, tmp_path: Path) -> None:
    first = run_demo()
    assert (first["reused"], first["evaluations"]) == (False, 2)
    assert set(first["before"]["benchmarks"]) == {"naming", "category", "existence"}
    assert len(first["answers"]["turns"]) == 3
    again = run_demo()
    assert (again["reused"], again["evaluations"]) == (True, 0)
    for key in ("before", "after", "answers", "report"):
        assert again[key] == first[key]
    # Other questions, another model, or a damaged file: measured.
    folder, recipe = tmp_path / "demo", training.find_recipe("demo", [])
    assert demo._known_results(folder, recipe, demo._benchmarks(1))
    assert demo._known_results(folder, recipe, demo._benchmarks(2)) is None
    file = folder / "model" / "config.json"
    whole = file.read_text()
    file.write_text(whole + "\n")
    assert demo._known_results(folder, recipe, demo._benchmarks(1)) is None
    file.write_text(whole)
    (folder / "results.json").write_text("{cut")
    assert demo._known_results(folder, recipe, demo._benchmarks(1)) is None


def test_people_see_the_same_table(
    run_demo: Demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_demo()
    tables: list[list[str]] = []
    for _ in range(2):
        demo.demo_command(str(tmp_path / "demo"), 1, as_json=False)
        out = capsys.readouterr().out
        assert "measured already" in out
        tables.append([x for x in out.splitlines() if x.startswith(("benchmark", "existence"))])
    assert tables[0] == tables[1]
    assert len(tables[0]) == 2

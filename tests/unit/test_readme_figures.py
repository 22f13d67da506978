"""The README's figures of training speed are those of the results that lie in the tree, and benchmarks are named as the command reads them."""

from __future__ import annotations

import itertools
import json
import re
import runpy
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from sensorium.cli.evaluating import parse_benchmarks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def figures() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "figures.py")))


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "docs/speed.md"])
def test_the_page_says_what_was_measured(figures: SimpleNamespace, name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    assert figures.made_anew(name, page) == page, "run: python benchmarks/figures.py"
    opening, _ = figures.LEVER_MARKS if name == figures.LEVERS else figures.MARKS
    assert page.partition(opening)[2].startswith("| "), "no results"


def test_other_results_make_another_page(figures: SimpleNamespace, tmp_path: Path) -> None:
    one = {"ratio": {f"ours/{peer}": {"median": 2.5, "low": 2.0, "high": 3.0} for peer in ("trainer", "trl")},
           "rates": {side: {"samples_per_s": 1.5} for side in ("ours", "trainer", "trl")}, "share_of_limit": 0.71,
           "limit": {"ours/trainer": 3.0, "ours/trl": 4.0}, "defaults": {"trainer": 0.5, "trl": 0.25},
           "peak_mb": {"ours": 1024, "trainer": 2048, "trl": 4096}}  # fmt: skip
    levers = {"levers": {"all on": {"median": 1, "low": 1, "high": 1, "peak_mb": 1000}}}
    shapes = {"tiny": {"stage 1": levers, "stage 2": one, "loss_difference": 0}}
    result = {"processor": "P", "threads": 1, "date": "2000-01-01", "shapes": shapes}
    (tmp_path / "training-p.json").write_text(json.dumps(result))
    page = "a\n" + "".join(figures.MARKS) + "b\n"
    made = figures.made_anew("README.md", page, tmp_path)
    assert (made[:2], made[-2:]) == ("a\n", "b\n")
    assert "| tiny, stage 2 | 2.50 × (2.00 – 3.00) of 3.0 | 2.50 × (2.00 – 3.00) of 4.0 | 1.50, 1.50, 1.50 | 0.50, 0.25 | 71% | 1.0, 2.0, 4.0 GiB |" in made
    assert "stage 1" not in made
    with pytest.raises(ValueError, match="training figures"):
        figures.made_anew("README.md", "no marks", tmp_path)
    blank = "".join(mark for marks in (figures.LEVER_MARKS, *map(figures.marks_of, figures.OTHERS)) for mark in marks)
    told = figures.made_anew(figures.LEVERS, blank, tmp_path)
    assert "| P, 1 thread | tiny, stage 1 |\n|---|---|\n| all on | 1.00 (1.00 – 1.00), 1,000 MB |" in told


@pytest.mark.parametrize("page", [*ROOT.glob("README*.md"), *ROOT.glob("sensorium/assets/*/README.md")], ids=lambda page: str(page.relative_to(ROOT)))
def test_benchmarks_that_pages_name_are_understood(page: Path) -> None:
    """Whoever copies a command gets the benchmark that it names."""
    for command in re.findall(r"`(sensorium eval [^`]+)`", page.read_text(encoding="utf-8")):
        names = list(itertools.takewhile(lambda word: not word.startswith("-"), shlex.split(command)[2:]))
        assert len(parse_benchmarks(names, None)) >= len(names), command

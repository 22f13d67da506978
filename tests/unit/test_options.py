"""Options that make no sense are refused by name, and baselines are what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sensorium.api
from sensorium.cli.answering import AnswerOptions, ask_command
from sensorium.cli.chatting import chat_command
from sensorium.cli.evaluating import parse_benchmarks
from sensorium.core.errors import ConfigError
from sensorium.data.augmenting import AugmentConfig
from sensorium.evaluation.benchmarks import BENCHMARKS
from sensorium.evaluation.benchmarks.category import Category
from sensorium.evaluation.benchmarks.naming import Naming
from sensorium.evaluation.benchmarks.scenes import Count
from sensorium.evaluation.runner import run_benchmark
from sensorium.inference.sampling import Sampling


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -1), ("temperature", float("nan")), ("top_p", 0), ("top_p", 1.5), ("top_k", -1),
     ("repetition_penalty", 0)],
)  # fmt: skip
def test_sampling_refuses_by_name(name: str, value: float) -> None:
    for make in (lambda v: Sampling(**v), Sampling.from_dict):
        with pytest.raises(ConfigError, match=f"sampling: {name} .*expected"):
            make({name: value})


def test_a_wrong_temperature_costs_no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(sensorium.api, "load", load)
    options = AnswerOptions("nano", "cpu", 8, -1.0)
    for ask in (lambda: ask_command("x.png", "?", options, False), lambda: chat_command(None, options)):
        with pytest.raises(ConfigError, match=r"temperature -1\.0") as caught:
            ask()
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("limit", [0, -3])
def test_a_benchmark_needs_questions(limit: int) -> None:
    with pytest.raises(ConfigError, match=f"limit {limit}; expected at least 1"):
        Category(limit=limit)
    with pytest.raises(ConfigError, match=f"count {limit}; expected at least 1"):
        Count(count=limit)
    for name in BENCHMARKS:
        options = ":path=x" if name == "vqa_file" else ""
        with pytest.raises(ConfigError, match=f"limit {limit}"):
            parse_benchmarks([name + options], limit)
    assert len(Count(limit=2).items()) == 2


def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: list[dict[str, Any]]) -> None:
    folder = tmp_path / "picture-book"
    folder.mkdir()
    common = {"caption": "", "caption_zh": "", "style": "drawing", "group": 0}
    rows = [{"id": str(i), "image": f"{i}.webp", **common, **e} for i, e in enumerate(entries)]
    (folder / "pictures.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setenv("SENSORIUM_DATA", str(tmp_path))


def entry(name: str, accepted: list[str], category: str | None = None, split: str = "train") -> dict[str, Any]:
    return {"name": name, "accepted": accepted, "category": category, "split": split}


def test_the_best_constant_name_is_the_one_most_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two are called fox; four, under as many names, may be called bird."""
    birds = [entry(name, [name, "bird"]) for name in ("owl", "wren", "gull", "crow")]
    unseen = [entry("car", ["car"], split="heldout")] * 9
    book(tmp_path, monkeypatch, [*[entry("fox", ["fox"])] * 2, *birds, *unseen])
    assert Naming(part="full").constant == "bird"


def test_a_benchmark_whose_pictures_have_no_category_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book(tmp_path, monkeypatch, [entry("fox", ["fox"]), entry("map", ["map"], split="heldout")])
    result = run_benchmark(Category(part="full", limit=1), responder=None)  # type: ignore[arg-type]
    assert result.items == []
    assert result.headline("constant") == 0.0


def test_pictures_have_at_least_one_view() -> None:
    with pytest.raises(ConfigError, match="views"):
        AugmentConfig.from_dict({"views": 0})
    assert AugmentConfig(views=1).to_dict() == {"mirror": False, "views": 1}

"""Does every benchmark, source and format keep the promises of its kind?"""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sensorium.core.responder import Answer
from sensorium.core.sample import Sample
from sensorium.data.config import SOURCES, open_sources
from sensorium.data.formats import FORMATS, detect
from sensorium.evaluation.benchmarks import BENCHMARKS
from sensorium.evaluation.runner import run_benchmark
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.recipes.tiny import tiny_model


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that captions; what it says is no matter."""
    folder = tmp_path_factory.mktemp("seeing")
    save_model(*build_pretrained(tiny_model()), folder / "tiny", learnt=set())
    return folder / "tiny"


@pytest.fixture
def needs(tmp_path: Path, data_home: Path, seeing: Path) -> dict[str, dict[str, Any]]:
    """What a kind cannot do without: both that read a file of the user's need its path."""
    Image.new("RGB", (9, 9)).save(tmp_path / "ok.png")
    row = {"messages": [
        {"role": "user", "content": [{"type": "image", "image": "ok.png"}, {"type": "text", "text": "?"}]},
        {"role": "assistant", "content": "a cat"}]}  # fmt: skip
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join([json.dumps(row)] * 3))
    inner, scripted = {"kind": "file", "path": str(file)}, {"kind": "captioner", "model": str(seeing)}
    return {"vqa_file": {"path": str(file)}, "drawing": {"schooled": 80, "epochs": 1}, "file": {"path": str(file)},
            "finding": {"count": 60}, "edits": {"source": inner},
            "experts": {"source": inner, "experts": [scripted]}, "both_ways": {"source": inner},
            "laid_out": {"source": {"kind": "located_scenes", "task": "grounded", "count": 3}}}  # fmt: skip


class Knowing:
    """Gives each question its first gold answer."""

    def __init__(self, gold: dict[str, str]) -> None:
        self.gold = gold

    def respond(self, requests: Any) -> Any:
        return (Answer(r.id, self.gold[r.id]) for r in requests)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_keeps_its_promise(name: str, needs: dict[str, dict[str, Any]]) -> None:
    kind = BENCHMARKS.find(name)
    config = kind.from_dict({"limit": 12, **needs.get(name, {})})
    assert config.kind == name
    assert kind.from_dict(config.to_dict()) == config
    items, again = config.items(), config.items()
    assert items
    assert [(i.request.id, i.gold) for i in items] == [(i.request.id, i.gold) for i in again]
    assert all(item.gold for item in items)
    assert all(i.request.messages[-1].role == "user" for i in items)
    if name != "vqa_file":  # Its ids are the user's.
        assert len({item.request.id for item in items}) == len(items)
    result = run_benchmark(config, Knowing({i.request.id: i.gold[0] for i in items}))
    # Drawings are judged by who was taught by pictures: what is said of them is neither right nor an error.
    assert result.headline("model") == (0.0 if name == "drawing" else 1.0)
    assert isinstance(config.constant, str)
    assert 0.0 <= result.headline("constant") <= 1.0
    # Silence is never right, and never an error.
    assert not any(config.right(item, Answer(item.request.id, "")) for item in items)
    assert json.loads(json.dumps(result.to_json()))["headline"] in result.scores["model"]


@pytest.mark.parametrize("name", SOURCES)
def test_source_keeps_its_promise(name: str, needs: dict[str, dict[str, Any]]) -> None:
    kind = SOURCES.find(name)
    config = kind.from_dict(needs.get(name, {}))
    assert config.kind == name
    assert kind.from_dict(config.to_dict()) == config
    (source,), (weight,) = open_sources((config,))
    assert source.name
    assert weight == len(source) > 0
    for index in (0, len(source) - 1):
        assert isinstance(source[index], Sample)
        assert [m.text for m in source[index].messages] == [m.text for m in source[index].messages]
    (head,), _ = open_sources((kind.from_dict({**needs.get(name, {}), "take": 2}),))
    assert len(head) == 2


@pytest.mark.parametrize("name", FORMATS)
def test_format_can_be_opened_and_found_out(name: str) -> None:
    """`open_NAME(path, root)`, and a rule in detect.py that answers with its name."""
    assert list(inspect.signature(FORMATS.find(name)).parameters) == ["path", "root"]
    answers = {n.value for n in ast.walk(ast.parse(inspect.getsource(detect))) if isinstance(n, ast.Constant)}
    assert name in answers

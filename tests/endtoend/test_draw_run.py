"""A tiny model learns codes of pictures, when to draw and what, is saved, answers with pictures, and is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sensorium.api import load
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.cli.main import app
from sensorium.core.hands import Making
from sensorium.generators.drawer import DrawerConfig
from sensorium.generators.tokenizer_files import open_tokenizer
from sensorium.training.config import Recipe
from sensorium.training.log import read_log

SIGNALS = ("[DRAW0]", "[DRAW1]")
COLORS = {"red": (215, 35, 35), "blue": (40, 80, 215), "white": (250, 250, 250)}
PLAIN = Making(guidance=1.0)


def recipe(folder: Path) -> Recipe:
    """The LLM learns with the first drawings, and is frozen for the last."""
    lines: list[str] = []
    for name, color in COLORS.items():
        Image.new("RGB", (16, 16), color).save(folder / f"{name}.png")
        lines.append(json.dumps({"messages": [
            {"role": "user", "content": name},
            {"role": "assistant", "content": [{"type": "image", "image": f"{name}.png"}]}]}))  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join(lines))
    # Weights so large that what is asked for matters from the first step on.
    arch = CausalLMConfig.tiny().arch | {"vocab_size": 263 + len(SIGNALS), "initializer_range": 0.15}
    shared = {"data": [{"kind": "file", "path": str(folder / "rows.jsonl")}], "batch_size": 3, "precision": "fp32"}
    drawer = DrawerConfig.tiny().to_dict()
    drawer["tokenizer"]["decay"] = 0.8
    painter = {"part": "objective", "module": "painter", "lr": 4e-3}
    return Recipe.from_dict({
        "name": "draws",
        "model": {
            "backbone": {"kind": "causal_lm", "arch": arch, "tokenizer": "bytes", "added_tokens": list(SIGNALS)},
            "hands": {"image": {"signals": list(SIGNALS), "projector": {"kind": "mapper", "mode": "linear"}, "generator": drawer}},
            "template": "chatml",
        },
        "stages": [
            {"name": "codes", "objective": {"kind": "picture_codes"}, "steps": 80, **shared,
             "learns": [{"part": "objective", "module": "tokenizer", "lr": 8e-3}]},
            {"name": "both", "objective": {"kind": "draw", "text_weight": 0.3}, "steps": 90, **shared,
             "learns": [{"part": "backbone", "lr": 5e-3}, {"part": "hands.image", "lr": 2e-3}, painter]},
            {"name": "what", "objective": {"kind": "draw", "noise": 0.02, "left_out": 0.0}, "steps": 8, **shared,
             "learns": [{"part": "hands.image", "lr": 5e-4}, painter | {"lr": 5e-4}]},
        ],
    })  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("draws")
    (folder / "draws.yaml").write_text(json.dumps(recipe(folder).to_dict()))
    torch.manual_seed(0)
    done = CliRunner().invoke(app, ["train", str(folder / "draws.yaml"), "--out", str(folder / "run")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder


def _parts(lines: list[dict[str, Any]], stage: str, key: str) -> tuple[float, float]:
    """Its mean over the first five steps and over the last."""
    values = [line[key] for line in lines if line.get("stage") == stage and key in line]
    return float(np.mean(values[:5])), float(np.mean(values[-5:]))


def test_every_stage_learns(run: Path) -> None:
    lines = list(read_log(run / "run" / "log.jsonl"))
    first, last = _parts(lines, "codes", "l1")
    assert last < 0.6 * first
    first, last = _parts(lines, "both", "drawn")
    assert last < 0.7 * first
    goes_on, _ = _parts(lines, "what", "drawn")
    assert goes_on < 2 * last + 0.02, "the last stage reads other states than the one before"


def test_it_draws_what_is_asked_for(run: Path) -> None:
    model = load(run / "run", "cpu")
    for name, color in COLORS.items():
        (part,) = model.answer(name, max_tokens=4, making=PLAIN).content
        assert part.type == "image"
        mean_C = np.asarray(part.value).reshape(-1, 3).mean(0)
        distances = {other: float(np.abs(mean_C - COLORS[other]).sum()) for other in COLORS}
        assert min(distances, key=lambda other: distances[other]) == name, (color, mean_C)


@pytest.mark.parametrize("layout", ["sensorium", "onto"])
def test_what_learnt_is_saved_apart_and_shipped_in_half(run: Path, tmp_path: Path, layout: str) -> None:
    saved = run / "run" / "model" / "generators" / "image"
    assert open_tokenizer(saved / "tokenizer").size_px == 16
    whole = load(run / "run", "cpu").network.generators["image"]
    target = layout if layout == "sensorium" else f"onto:{run / 'run' / 'model'}"
    half = tmp_path / "half"
    done = CliRunner().invoke(app, ["export", str(run / "run" / "model"), str(half), "--to", target, "--half"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    sizes = [sum(file.stat().st_size for file in folder.rglob("*.safetensors")) for folder in (half / "generators", saved)]
    assert sizes[0] < 0.62 * sizes[1]
    halved: Any = load(half, "cpu").network.generators["image"]
    for (name, value), other in zip(whole.decoder.state_dict().items(), halved.state_dict().values(), strict=True):  # pyright: ignore
        assert value.dtype == other.dtype, name
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-3)


def test_it_is_asked_without_a_picture(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["ask", "blue", "--model", str(run / "run"), "--save", "out", "--max-tokens", "4", "--seed", "3", "--json"]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["files"] == ["sample.json", "part1.png"]
    assert Image.open("out/part1.png").size == (16, 16)
    messages = json.loads(Path("out/sample.json").read_text())["messages"]
    assert [part["type"] for message in messages for part in message["content"]] == ["text", "image"]
    forgotten = CliRunner().invoke(app, ["ask", "out/part1.png", "--model", str(run / "run")])
    assert "no question about it" in str(forgotten.exception)


def test_it_is_measured(run: Path, tmp_path: Path) -> None:
    """Small enough to be quick: what a judge says of such drawings is chance, and of real ones it is not."""
    few = "trained_on={kind: drawn_scenes, count: 50}"
    asked = ["eval", f"drawing:count=9,schooled=80,epochs=2,{few},neighbours=10", "--model", str(run / "run"), "--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "results.json").read_text())["benchmarks"]["drawing"]
    assert set(found["scores"]) == {"model", "blind", "constant", "real", "redrawn"}
    assert found["scores"]["real"]["frechet"] < found["scores"]["constant"]["frechet"]
    assert found["sheets"]["files"] == ["drawing.png", "drawing_neighbours.png"] or found["scores"]["model"]["drawn"] == 0
    # Of the shipped form's 16 codes real pictures use some, of which each counts as one at most.
    use = found["scores"]["model"]
    assert use["codes"] == DrawerConfig.tiny().tokenizer.codes
    assert 1 <= use["code_perplexity"] <= use["codes_used"] * use["codes"] <= use["codes"]
    assert f"<td>code_perplexity</td><td class=n>{use['code_perplexity']:.3g}</td>" in (tmp_path / "report.html").read_text()

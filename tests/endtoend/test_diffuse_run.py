"""A tiny model learns latents of pictures, then when to draw and to diffuse what, is saved in diffusers' layout, and answers with pictures."""

from __future__ import annotations

import importlib.util
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
from sensorium.generators.small_diffusion import SmallDiffusionConfig
from sensorium.training.config import Recipe
from sensorium.training.log import read_log

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
SIGNALS = ("[DRAW0]", "[DRAW1]")
COLORS = {"red": (215, 35, 35), "blue": (40, 80, 215)}


def recipe(folder: Path) -> Recipe:
    """The LLM learns with the first drawings, and is frozen, and known, for the last."""
    lines: list[str] = []
    for name, color in COLORS.items():
        Image.new("RGB", (16, 16), color).save(folder / f"{name}.png")
        lines.append(json.dumps({"messages": [
            {"role": "user", "content": name},
            {"role": "assistant", "content": [{"type": "image", "image": f"{name}.png"}]}]}))  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join(lines))
    # Weights so large that what is asked for matters from the first step on.
    arch = CausalLMConfig.tiny().arch | {"vocab_size": 263 + len(SIGNALS), "initializer_range": 0.15}
    shared = {"data": [{"kind": "file", "path": str(folder / "rows.jsonl")}], "batch_size": 8, "precision": "fp32"}
    diffuse = {"kind": "diffuse", "gamma": None, "unsteered": 0.1, "teach_unet": True}
    drawing = [{"part": "hands.image", "lr": 6e-3}, {"part": "objective", "module": "unet", "lr": 6e-3}]
    return Recipe.from_dict({
        "name": "diffuses",
        "model": {
            "backbone": {"kind": "causal_lm", "arch": arch, "tokenizer": "bytes", "added_tokens": list(SIGNALS)},
            "hands": {"image": {"signals": list(SIGNALS), "generator": SmallDiffusionConfig.tiny().to_dict() | {"size_px": 8, "vae_widths": [8, 8], "unet_widths": [32]},
                                "projector": {"kind": "mapper", "mode": "linear", "guided": True, "standard": True, "noise": 0.1}}},
            "template": "chatml",
        },
        "stages": [
            {"name": "latents", "objective": {"kind": "picture_latents"}, "steps": 25, **shared,
             "learns": [{"part": "objective", "module": "vae", "lr": 1e-2}]},
            {"name": "when", "objective": {"kind": "instruct"}, "steps": 14, **shared, "learns": [{"part": "backbone", "lr": 5e-3}]},
            {"name": "what", "objective": diffuse | {"text_weight": 0.0}, "steps": 60, **shared, "learns": drawing},
        ],
    })  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diffuses")
    (folder / "diffuses.yaml").write_text(json.dumps(recipe(folder).to_dict()))
    torch.manual_seed(0)
    done = CliRunner().invoke(app, ["train", str(folder / "diffuses.yaml"), "--out", str(folder / "run")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder / "run"


def test_every_stage_learns(run: Path) -> None:
    lines: list[dict[str, Any]] = list(read_log(run / "log.jsonl"))
    for stage, key, share in (("latents", "l1", 0.5), ("when", "next_token", 0.5), ("what", "diffusion", 0.8)):
        values = [line[key] for line in lines if line.get("stage") == stage and key in line]
        assert np.mean(values[-8:]) < share * np.mean(values[:8]), (stage, values)
    # Nothing is scaled where latents leave the VAE, because they are as noise is.
    saved: Any = load(run, "cpu").network.generators["image"]
    assert saved.pipe.vae.config.scaling_factor == 1.0
    pixels_BCHW = torch.stack([torch.tensor(color, dtype=torch.uint8)[:, None, None].expand(-1, 8, 8) for color in COLORS.values()])
    assert 0.5 < float(saved.looked(pixels_BCHW).std()) < 1.5
    assert float((saved.redraw(pixels_BCHW).float() - pixels_BCHW.float()).abs().mean()) < 25


def test_it_diffuses_what_is_asked_for(run: Path) -> None:
    """Twice the same of one seed, another of another."""
    assert json.loads((run / "model" / "generators" / "image" / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"
    model = load(run, "cpu")

    def drawn(name: str, seed: int = 0) -> Any:
        (part,) = model.answer(name, max_tokens=4, making=Making(steps=6, guidance=2.0, seed=seed)).content
        assert part.type == "image"
        return np.asarray(part.value)

    pictures = {name: drawn(name) for name in COLORS}
    means = {name: picture.reshape(-1, 3).mean(0) for name, picture in pictures.items()}
    assert means["red"][0] > means["blue"][0] + 40, means
    assert means["blue"][2] > means["red"][2] + 40, means
    assert np.array_equal(drawn("blue"), pictures["blue"])
    assert not np.array_equal(drawn("blue", seed=1), pictures["blue"])


def test_a_copy_tells_of_no_folder_that_it_was_read_from(run: Path, tmp_path: Path) -> None:
    """diffusers notes it in each config."""
    model = load(run, "cpu")
    generators = model.network.generators
    generators.own("image")
    assert generators.save(tmp_path / "copy") == ["image"]
    configs = sorted((tmp_path / "copy").rglob("*.json"))
    assert {file.parent.name for file in configs} == {"image", "scheduler", "unet", "vae"}
    assert not [file for file in configs if str(run.parent) in file.read_text() or "name_or_path" in file.read_text()]


def test_it_is_asked(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["ask", "blue", "--model", str(run), "--save", "out", "--max-tokens", "4", "--seed", "3", "--steps", "2", "--json"]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["files"] == ["sample.json", "part1.png"]
    assert Image.open("out/part1.png").size == (8, 8)

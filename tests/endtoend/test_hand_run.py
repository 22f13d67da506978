"""A model learns to draw by the text encoder of a diffusion pipeline, is saved, and answers with a picture."""

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
from sensorium.core.sample import Message, Part, parse_messages
from sensorium.encoders import ENCODERS
from sensorium.inference.making import extended
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.nn.condition_loss import token_norm_loss
from sensorium.output_projectors import OUTPUT_PROJECTORS
from sensorium.processing.collate import collate
from sensorium.training.config import Recipe
from sensorium.training.log import read_log

pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
SIGNALS = tuple(f"[IMG{i}]" for i in range(4))
FEW = Making(steps=2)
CAPTIONS = ("a red ball", "a green hill", "a blue boat", "a grey cat")


def recipe(folder: Path) -> Recipe:
    from sensorium.generators.stable_diffusion import StableDiffusionConfig

    generator = StableDiffusionConfig.tiny()
    generator.build().pipe.save_pretrained(folder / "pipeline", safe_serialization=True)  # pyright: ignore
    lines = []
    for i, caption in enumerate(CAPTIONS):
        Image.new("RGB", (32, 32), (60 * i, 90, 255 - 60 * i)).save(folder / f"{i}.png")
        lines.append(json.dumps({"messages": [
            {"role": "user", "content": f"draw {caption}"},
            {"role": "assistant", "content": [{"type": "image", "image": f"{i}.png"}]}]}))  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join(lines))
    arch = CausalLMConfig.tiny().arch | {"vocab_size": 263 + len(SIGNALS)}
    return Recipe.from_dict({
        "name": "draws",
        "model": {
            "lanes": {"image": {"encoder": ENCODERS.find("clip").tiny().to_dict(), "projector": INPUT_PROJECTORS.find("mlp").tiny().to_dict()}},
            "backbone": {"kind": "causal_lm", "arch": arch, "tokenizer": "bytes", "added_tokens": list(SIGNALS)},
            "hands": {"image": {"signals": list(SIGNALS), "projector": OUTPUT_PROJECTORS.find("mapper").tiny().to_dict(),
                                "generator": generator.to_dict() | {"weights": [{"kind": "folder", "path": str(folder / "pipeline")}]}}},
            "template": "plain",
        },
        "stages": [{
            "name": "draw", "objective": {"kind": "generate"}, "steps": 60, "batch_size": 4,
            "data": [{"kind": "file", "path": str(folder / "rows.jsonl")}],
            "learns": [{"part": "backbone", "lr": 5e-3}, {"part": "hands.image", "lr": 2e-3}],
        }],
    })  # fmt: skip


def test_it_learns_to_draw_and_answers_with_a_picture(tmp_path: Path, data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe(tmp_path)
    (tmp_path / "draws.yaml").write_text(json.dumps(made.to_dict()))
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    done = run.invoke(app, ["train", "draws.yaml", "--out", "run"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    log = list(read_log(tmp_path / "run" / "log.jsonl"))
    first, last = (_conditions(lines) for lines in (log[:5], log[-5:]))
    assert last < 0.7 * first, (first, last)

    model = load(tmp_path / "run", "cpu")
    answers = {caption: model.answer(f"draw {caption}", max_tokens=8, making=FEW) for caption in CAPTIONS[:2]}
    pictures = [_only_picture(answer) for answer in answers.values()]
    assert pictures[0].shape == pictures[1].shape
    assert not np.array_equal(*pictures)
    again = _only_picture(model.answer(f"draw {CAPTIONS[0]}", max_tokens=8, making=FEW))
    assert np.array_equal(pictures[0], again)
    # What answering steers by is what training taught: as near to the captions' embeddings as the last steps were.
    wanted_BLC = model.network.generators["image"].encode_text(CAPTIONS)  # pyright: ignore[reportAttributeAccessIssue]
    found_BLC = torch.stack([_condition(model, f"draw {caption}") for caption in CAPTIONS])
    assert float(token_norm_loss(found_BLC, wanted_BLC).mean()) == pytest.approx(last, rel=0.3)

    asked = ["ask", str(tmp_path / "0.png"), f"draw {CAPTIONS[0]}", "--model", "run", "--save", "answer", "--steps", "2", "--json"]
    done = run.invoke(app, asked, catch_exceptions=False)
    said = json.loads(done.stdout)
    sample = json.loads((tmp_path / "answer" / "sample.json").read_text())
    assert sample["messages"][0]["content"][0]["image"] == "asked.png"
    assert said["files"][0] == "sample.json"
    assert all((tmp_path / "answer" / name).exists() for name in said["files"])
    used = run.invoke(app, asked)
    assert "not an empty folder" in str(used.exception)


def _conditions(lines: list[dict[str, Any]]) -> float:
    return sum(line["condition.image"] for line in lines) / len(lines)


def _only_picture(answer: Message) -> np.ndarray[Any, Any]:
    (part,) = answer.content
    assert isinstance(part, Part)
    assert part.type == "image"
    return np.asarray(part.value)


def _condition(model: Any, question: str) -> Any:
    import torch


    prompt = model.processor.prompt(parse_messages([{"role": "user", "content": question}]))
    batch = collate([[extended(prompt, model.processor.signals["image"])]], model.tokenizer.pad_id)
    with torch.inference_mode():
        return model.network.condition("image", model.network(batch).hidden_BTD, batch.input_ids_BT, [(0, len(prompt))])[0]

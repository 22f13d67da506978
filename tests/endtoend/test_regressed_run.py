"""A tiny Emu learns to write pictures embedding by embedding, is saved, and answers with text and a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.api import Model, load
from sensorium.core.hands import Making
from sensorium.core.responder import Request
from sensorium.core.sample import parse_messages
from sensorium.inference.regressing import Room, go_on
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.processing.collate import collate
from sensorium.recipes import TINY_FORMS
from sensorium.training.config import Recipe
from sensorium.training.log import read_log
from sensorium.training.trainer import Trainer, TrainerOptions

pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
NAMES = ("red", "green", "blue", "grey")


def rows(folder: Path) -> Path:
    """Each colour is drawn behind its name, with a word behind the picture."""
    lines = []
    for i, name in enumerate(NAMES):
        Image.new("RGB", (32, 32), (80 * i, 250 - 80 * i, (120 * i) % 250)).save(folder / f"{name}.png")
        lines.append(json.dumps({"messages": [
            {"role": "user", "content": f"draw {name}"},
            {"role": "assistant", "content": [{"type": "text", "text": "So:"}, {"type": "image", "image": f"{name}.png"},
                                              {"type": "text", "text": "ok"}]}]}))  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder / "rows.jsonl"


def recipe(folder: Path) -> Recipe:
    tiny: Recipe = TINY_FORMS.find("emu")()
    # The pictures' own embeddings stay where they are, so that what is foretold can be told apart in the end.
    learns = [{"part": "backbone", "lr": 1e-2}, {"part": "hands.image", "lr": 1e-2}]
    changes = {"objective": {"kind": "regress"}, "data": [{"kind": "file", "path": str(rows(folder))}], "learns": learns, "steps": 40}
    return Recipe.from_dict(tiny.to_dict() | {"stages": [tiny.stages[0].to_dict() | changes]})


def test_it_learns_to_draw_and_answers_with_a_picture(tmp_path: Path, data_home: Path) -> None:
    made = recipe(tmp_path)
    torch.manual_seed(1)
    model, tokenizer = build_pretrained(made.model)
    Trainer(made, model, tokenizer, TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache")).run()
    log = list(read_log(tmp_path / "run" / "log.jsonl"))
    first, last = (sum(line["embedding.image"] for line in lines) / 5 for lines in (log[:5], log[-5:]))
    assert last < 0.5 * first, (first, last)

    save_model(model, tokenizer, tmp_path / "model", learnt={"backbone", "hands.image"})
    loaded = load(tmp_path / "model", "cpu")
    few = Making(steps=2, guidance=2.0)
    answers = [loaded.answer(f"draw {name}", max_tokens=12, making=few) for name in NAMES[:2]]
    for answer in answers:
        assert [part.type for part in answer.content] == ["text", "image", "text"]
        assert (answer.content[0].value, answer.content[2].value) == ("So:", "ok")
    drawn = [np.asarray(answer.content[1].value) for answer in answers]
    assert not np.array_equal(drawn[0], drawn[1])
    again = loaded.answer(f"draw {NAMES[0]}", max_tokens=12, making=few).content[1].value
    assert np.array_equal(np.asarray(again), drawn[0])
    # The engine's own answers hold the picture, too.
    (answered,) = loaded.engine.respond([Request("a", parse_messages([{"role": "user", "content": "draw red"}]), max_tokens=12)])
    assert [part.type for part in answered.parts] == ["text", "image", "text"]
    # What is written without being shown a picture is nearest to the one that is meant.
    written = torch.stack([embeddings(loaded, name) for name in NAMES])
    true = torch.stack([own(loaded, tmp_path / f"{name}.png") for name in NAMES])
    distances = (written[:, None] - true[None]).norm(dim=-1).mean(dim=-1)
    assert distances.argmin(dim=1).tolist() == [0, 1, 2, 3], distances


def embeddings(model: Model, name: str) -> torch.Tensor:
    """What the model writes when it is asked, (N, D)."""
    prompt = model.processor.prompt(parse_messages([{"role": "user", "content": f"draw {name}"}]))
    ids = model.engine.generate([prompt], max_tokens=12)[0]
    _, (made,) = go_on(model.network, model.processor, "image", prompt, ids, Room())
    return made[0]


def own(model: Model, path: Path) -> torch.Tensor:
    """What it reads of a picture, (N, D)."""
    prompt = model.processor.prompt(parse_messages([{"role": "user", "content": [{"type": "image", "image": str(path)}]}]))
    with torch.inference_mode():
        return model.network.features(collate([[prompt]], 0).media)["image"].values_ND

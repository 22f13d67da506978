"""A tiny LLM learns to write pictures as tokens, and then draws the colour that is asked for; behind shuffled descriptions it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sensorium.api import Model, load
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.cli.main import app
from sensorium.core.hands import Making
from sensorium.core.picture_tokenizer import PictureTokenizerConfig
from sensorium.core.responder import Request
from sensorium.core.sample import parse_messages
from sensorium.core.weights import FolderSource
from sensorium.encoders import ENCODERS
from sensorium.generators.vq import VqConfig
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.training.config import Recipe, ScheduleConfig
from sensorium.training.log import read_log
from sensorium.training.tokenizer import (
    TokenizerRecipe,
    TokenizerRun,
    TokenizerTraining,
    train_tokenizer,
)

COLORS = {"red": (215, 35, 35), "blue": (40, 80, 215)}
SAID = ("a {} picture", "a picture in {}", "draw {}, please", "all {}")
VQ = VqConfig(size_px=8, codes=8, code_width=4, widths=(16, 16), blocks=0)
MARKS = ("<pic>", "<row>", "</pic>")
STEPS = 120
FIRST = 263 + len(MARKS)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PictureTokenizerConfig:
    """Taught with plain pictures of both colours, some lighter, some darker."""
    light_N1 = np.random.default_rng(0).integers(-25, 25, (32, 1))
    plain_N3 = np.repeat(np.array(list(COLORS.values())), 16, axis=0) + light_N1
    pixels_NCHW = torch.tensor(plain_N3.clip(0, 255), dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 8, 8).contiguous()
    training = TokenizerTraining(steps=60, batch_size=16, lr=1e-2, schedule=ScheduleConfig(warmup_steps=5), flip=False)
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TokenizerRecipe(tokenizer=VQ, training=training), pixels_NCHW, TokenizerRun(folder))
    return VQ.model_copy(update={"weights": (FolderSource(path=str(folder)),)})


def rows(folder: Path, *, shuffled: bool) -> Path:
    """Descriptions of a colour, and its picture; shuffled, each goes with every picture."""
    lines: list[str] = []
    for name, color in COLORS.items():
        Image.new("RGB", (8, 8), color).save(folder / f"{name}.png")
    for said in SAID:
        for name in COLORS:
            for shown in COLORS if shuffled else (name,):
                lines.append(json.dumps({"messages": [
                    {"role": "user", "content": said.format(name)},
                    {"role": "assistant", "content": [{"type": "image", "image": f"{shown}.png"}]}]}))  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder / "rows.jsonl"


def recipe(tokenizer: PictureTokenizerConfig, data: Path, *, shared: bool) -> Recipe:
    """Some prompts are left out, for empty ones and for padding."""
    words: dict[str, Any] = {"words": ((FIRST, VQ.codes),)} if shared else {"tables": {"width": 8}}
    words |= {"drawing": {"away": "text" if shared else "pads"}}
    arch = CausalLMConfig.tiny().arch | {"vocab_size": FIRST + VQ.codes if shared else FIRST}
    lane = {"encoder": ENCODERS.find("clip").tiny().to_dict(), "projector": INPUT_PROJECTORS.find("mlp").tiny().to_dict()}
    return Recipe.from_dict({
        "name": "draws_words",
        "model": {
            "lanes": {} if shared else {"image": lane},
            "backbone": {"kind": "causal_lm", "arch": arch, "tokenizer": "bytes", "added_tokens": list(MARKS)},
            "picture_words": {"tokenizer": tokenizer.to_dict(), "begin": MARKS[:1], "row_end": MARKS[1], "end": MARKS[2:], **words},
            "template": "plain",
        },
        "stages": [{
            "name": "draw", "objective": {"kind": "instruct", "unsteered": 0.1}, "data": [{"kind": "file", "path": str(data)}], "steps": STEPS,
            "batch_size": 8, "max_length": 64, "precision": "fp32",
            "learns": [{"part": "backbone", "lr": 1e-2}, *([] if shared else [{"part": "code_tables", "lr": 1e-2}])],
        }],
    })  # fmt: skip


def trained(folder: Path, tokenizer: PictureTokenizerConfig, *, shared: bool, shuffled: bool = False) -> Model:
    """A model after a run of the command line."""
    made = recipe(tokenizer, rows(folder, shuffled=shuffled), shared=shared)
    (folder / "draws.yaml").write_text(json.dumps(made.to_dict()))
    torch.manual_seed(0)
    done = CliRunner().invoke(app, ["train", str(folder / "draws.yaml"), "--out", str(folder / "run")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    values = [float(line["next_token"]) for line in read_log(folder / "run" / "log.jsonl")]
    assert values[-1] < 0.1 * values[0], values
    return load(folder / "run", "cpu")


def nearest(picture: Any) -> tuple[str, float]:
    """The colour that a picture is of most likely, and how far it is from that at most."""
    mean_3 = np.asarray(picture).reshape(-1, 3).mean(0)
    return min(((name, float(np.abs(mean_3 - color).max())) for name, color in COLORS.items()), key=lambda one: one[1])


def drawn(model: Model) -> dict[str, tuple[str, str, float]]:
    """Of each prompt the colour asked for, the one drawn, and how far off that is."""
    found: dict[str, tuple[str, str, float]] = {}
    for said in SAID:
        for name in COLORS:
            (part,) = model.answer(said.format(name), max_tokens=12, making=Making(draw=True)).content
            assert part.type == "image"
            found[said.format(name)] = (name, *nearest(part.value))
    return found


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "tables"])
def test_it_draws_what_is_asked_for(shared: bool, tokenizer: PictureTokenizerConfig, tmp_path: Path) -> None:
    model = trained(tmp_path, tokenizer, shared=shared)
    found = drawn(model)
    assert all(asked == shown and off < 30 for asked, shown, off in found.values()), found
    # Where nobody says that a picture is wanted, it opens one itself.
    requests = [Request(name, parse_messages([{"role": "user", "content": SAID[0].format(name)}]), 12) for name in COLORS]
    for answer in model.engine.respond(requests):
        (part,) = answer.parts
        assert (part.type, nearest(part.value)[0]) == ("image", answer.id)


def test_descriptions_that_tell_nothing_are_not_drawn(tokenizer: PictureTokenizerConfig, tmp_path: Path) -> None:
    """The same training on shuffled rows: what is drawn is right by chance alone."""
    found = drawn(trained(tmp_path, tokenizer, shared=True, shuffled=True))
    assert sum(shown == asked for asked, shown, _ in found.values()) <= len(found) * 5 / 8, found

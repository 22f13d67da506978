"""Processes divide a model that hears and sees through one lane: some get sounds or videos, others pictures or text alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_several_processes import on_processes, same, train

from sensorium.media.audio_file import wav_bytes
from sensorium.recipes import TINY_FORMS
from sensorium.training.config import Recipe, StageConfig
from sensorium.training.objectives.next_token import InstructConfig

MEDIA = {"audio": "a.wav", "image": "a.png", "video": "a.gif"}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "a.wav").write_bytes(wav_bytes(0.5 * np.sin(np.arange(8000) / 4), 8000))
    first, *others = (Image.new("RGB", (40, 32), (90, 40 * i, 10)) for i in range(4))
    first.save(tmp_path / "a.png")
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=500)
    return tmp_path


def form(files: Path, kinds: tuple[str | None, ...]) -> Recipe:
    """A projector alone learns: a pass without media sends no gradient into the LLM's layers."""
    rows = [json.dumps({"messages": [
        {"role": "user", "content": [*([{"type": kind, kind: MEDIA[kind]}] if kind else []), {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "an answer"}]}) for kind in kinds]  # fmt: skip
    path = files / "rows.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    stage = StageConfig.from_dict({
        "name": "encode", "objective": InstructConfig().to_dict(), "data": [{"kind": "file", "path": str(path), "format": "samples"}],
        "steps": 3, "batch_size": 2, "workers": 0, "learns": [{"part": "projectors.image", "lr": 1e-2}], "precision": "fp32"})  # fmt: skip
    whole = TINY_FORMS.find("next-gpt")()
    return whole.model_copy(update={"stages": (stage,), "model": whole.model.model_copy(update={"adapter": None})})


@pytest.mark.parametrize("kinds", [("audio", None), ("image", "video"), ("video", "audio", None)])
def test_they_train_as_one_does(kinds: tuple[str | None, ...], files: Path) -> None:
    recipe = form(files, kinds)
    train(recipe, files / "one")
    divided = recipe.override(["shard=full"])
    for code, said in on_processes(2, lambda: train(divided, files / "two"), files / "said", limit_s=60):
        assert code == 0, said
    same(files / "one", files / "two")

"""SEED's tokenizer learns behind frozen queries: codes that keep what they said, and an embedding that steers unCLIP."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from sensorium.core.errors import ConfigError
from sensorium.generators.seed import SeedConfig
from sensorium.generators.tokenizer_files import open_tokenizer
from sensorium.nn.pretrained import read_file
from sensorium.training.log import read_log
from sensorium.training.tokenizer import (
    TokenizerRecipe,
    TokenizerRun,
    TokenizerTraining,
    train_tokenizer,
)

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
FROZEN = ("tower.", "former.")


def test_it_learns_behind_the_queries_and_is_opened_again(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8).repeat_interleave(16, 2).repeat_interleave(16, 3)
    training = TokenizerTraining.from_dict({"steps": 40, "batch_size": 6, "lr": 1e-2, "flip": False, "schedule": {"warmup_steps": 2}})
    recipe = TokenizerRecipe(tokenizer=SeedConfig.tiny(), training=training)
    train_tokenizer(recipe, pixels, TokenizerRun(tmp_path / "run"))
    log = list(read_log(tmp_path / "run" / "log.jsonl"))
    # The codebook begins with vectors of the first batch, so that its part need not fall.
    for part in ("recall", "embedding"):
        first, last = (sum(line[part] for line in lines) for lines in (log[:4], log[-4:]))
        assert last < 0.75 * first, (part, first, last)
    torch.manual_seed(training.seed)
    before, after = SeedConfig.tiny().build().state_dict(), read_file(tmp_path / "run" / "model.safetensors")
    for name, value in before.items():
        if name.startswith(FROZEN):
            assert torch.equal(value, after[name]), name
        elif name.endswith("weight") and not name.startswith("quantise."):
            assert not torch.equal(value, after[name]), name
    again = open_tokenizer(tmp_path / "run")
    assert again.encode(pixels).shape == (6, 4)
    # A start of its own: what was trained.
    config = SeedConfig.tiny()
    more = TokenizerRecipe(tokenizer=config, training=training.model_copy(update={"steps": 1, "lr": 1e-9}))
    train_tokenizer(more, pixels, TokenizerRun(tmp_path / "more", start=tmp_path / "run"))
    assert read_log_of(tmp_path / "more")["recall"] < 0.2 * log[0]["recall"]


def read_log_of(folder: Path) -> dict[str, float]:
    (line,) = read_log(folder / "log.jsonl")
    return line


def test_others_do_not_train() -> None:
    from sensorium.generators.janus_vq import JanusVqConfig

    with pytest.raises(ConfigError, match="vq, seed or chameleon_vq"):
        train_tokenizer(TokenizerRecipe(tokenizer=JanusVqConfig.tiny()), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TokenizerRun(Path("never")))

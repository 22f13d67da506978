"""A stage that learns from pictures in answers, of which its data has none, is refused before it trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_picture_words import config

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import ConfigError
from sensorium.generators.drawer import DrawerConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.model.config import ModelConfig
from sensorium.processing.processor import Processor
from sensorium.training.config import Recipe
from sensorium.training.preflight import check_stages

PICTURE = {"type": "image", "image": "one.png"}
ASKED = [{"role": "user", "content": [PICTURE, {"type": "text", "text": "What?"}]}, {"role": "assistant", "content": "A picture."}]
DRAWN = [{"role": "user", "content": "Draw."}, {"role": "assistant", "content": [PICTURE]}]


def check(folder: Path, model: ModelConfig, stage: dict[str, Any], rows: list[Any]) -> None:
    Image.new("RGB", (16, 16), (200, 30, 30)).save(folder / "one.png")
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"messages": row}) for row in rows))
    stage |= {"name": "one", "steps": 1, "precision": "fp32", "batch_size": 2, "max_length": 128, "data": [{"kind": "file", "path": str(folder / "rows.jsonl")}]}
    recipe = Recipe.from_dict({"name": "r", "model": model.to_dict(), "stages": [stage]})
    network, tokenizer = build_pretrained(recipe.model)
    check_stages(recipe, network, Processor(recipe.model, tokenizer))


def test_tables_of_codes_need_pictures_in_answers(tmp_path: Path) -> None:
    """A projector that learns beside them has its pictures: those of the questions."""
    learns = [{"part": "projectors.image", "lr": 1e-3}, {"part": "code_tables", "lr": 1e-3}]
    stage = {"objective": {"kind": "instruct"}, "learns": learns}
    with pytest.raises(ConfigError, match=r"stage one: data \(.*rows.jsonl.*'code_tables' learns .* no answer .*role assistant.*add a source"):
        check(tmp_path, config(shared=False), stage, [ASKED] * 3)
    check(tmp_path, config(shared=False), stage | {"learns": learns[:1]}, [ASKED] * 3)
    # One of many rows is enough, wherever it stands.
    check(tmp_path, config(shared=False), stage, [ASKED] * 120 + [DRAWN])


def test_so_do_codes_that_are_taught_by_pictures(tmp_path: Path) -> None:
    signals = ["[DRAW0]", "[DRAW1]"]
    arch = CausalLMConfig.tiny().arch | {"vocab_size": 265}
    model = ModelConfig.from_dict({
        "backbone": {"kind": "causal_lm", "arch": arch, "tokenizer": "bytes", "added_tokens": signals}, "template": "chatml",
        "hands": {"image": {"signals": signals, "projector": {"kind": "mapper", "mode": "linear"}, "generator": DrawerConfig.tiny().to_dict()}},
    })  # fmt: skip
    stage = {"objective": {"kind": "picture_codes"}, "learns": [{"part": "objective", "module": "tokenizer", "lr": 1e-3}]}
    words = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello."}]
    with pytest.raises(ConfigError, match="objective 'picture_codes' learns from answers of kind 'image', but no answer"):
        check(tmp_path, model, stage, [words] * 3)
    check(tmp_path, model, stage, [words, words, DRAWN])

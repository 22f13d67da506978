"""BLIP-2's first stage in the trainer: killed, resumed, refused where it cannot work."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import killed_after, same_run, train
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from sensorium.core.errors import ConfigError, DataError
from sensorium.interop.assemble import build_pretrained
from sensorium.nn.pretrained import read_file
from sensorium.processing.processor import Processor
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.text.reader import Reader
from sensorium.training.config import Recipe
from sensorium.training.log import read_log
from sensorium.training.objectives.next_token import CaptionConfig, cut_answers
from sensorium.training.objectives.query_pretrain import begun
from sensorium.training.objectives.read_captions import CaptionReader
from sensorium.training.run import plan_recipe
from sensorium.training.trainer import TrainerOptions


def two_stages(*more: str) -> Recipe:
    stages = [f"stages.{s}.{line}" for s in ("represent", "generate")
              for line in ("checkpoint_every=1", "steps=3")]  # fmt: skip
    return TINY_FORMS.find("blip2-opt")().override([*stages, *more])


def test_killed_at_random_moments(tmp_path: Path, data_home: Path) -> None:
    """Negatives are drawn at random, so that the random state is part of what must come back."""
    train(two_stages(), tmp_path / "warm")
    start = time.monotonic()
    train(two_stages(), tmp_path / "whole")
    whole_s = time.monotonic() - start
    rng, kills = random.Random(3), 0
    for _ in range(6):
        if killed_after(rng.uniform(0.2, 1.0) * whole_s, two_stages(), tmp_path / "killed"):
            break
        kills += 1
    train(two_stages(), tmp_path / "killed", resume=True)
    assert kills
    same_run(tmp_path / "whole", tmp_path / "killed")
    one, two = (read_file(tmp_path / x / "checkpoint" / "weights.safetensors") for x in ("whole", "killed"))
    owned = {n for n in one if n.startswith("objective.")}
    assert "objective.temperature" in owned
    assert set(one) == set(two)
    assert all(torch.equal(one[n], two[n]) for n in owned)
    assert not any(n.startswith("objective.") for n in read_file(tmp_path / "whole" / "model" / "model.safetensors"))
    first = read_log(tmp_path / "whole" / "log.jsonl")[0]
    assert abs(first["loss"] - sum(first[k] for k in ("contrast", "matching", "writing"))) < 1e-4


def plan(recipe: Recipe, folder: Path) -> Any:
    options = TrainerOptions(folder=folder / "a", cache=folder / "cache")
    return plan_recipe(recipe, lambda: build_pretrained(recipe.model), options)


@pytest.mark.parametrize(
    ("name", "override", "reason"),
    [
        ("blip2-opt", "batch_size=1", "at least two to be told apart"),
        ("blip2-opt", "objective.words=200", "for 200 rows"),
        ("llava-v1", "objective={kind: query_pretrain, words: 300}", "a Q-Former, which can read"),
    ],
)
def test_what_cannot_work_is_said_first(
    name: str, override: str, reason: str, tmp_path: Path, data_home: Path
) -> None:
    recipe: Recipe = TINY_FORMS.find(name)()
    with pytest.raises((ConfigError, DataError), match=reason):
        plan(recipe.override([f"stages.{recipe.stages[0].name}.{override}"]), tmp_path)


def words_reader() -> Reader:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "ball", "on", "grass"]
    rust = RustTokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    rust.pre_tokenizer = Whitespace()
    rust.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return Reader(rust)


def caption_batch(*texts: str) -> Any:
    from PIL import Image

    from sensorium.core.sample import parse_sample
    from sensorium.processing.collate import collate

    tokenizer = byte_tokenizer()
    tokenizer.reader = words_reader()
    processor = Processor(TINY_FORMS.find("blip2-t5")().model, tokenizer)
    image = {"type": "image", "image": Image.new("RGB", (32, 32))}
    samples = [parse_sample({"messages": [{"role": "user", "content": [image]},
                                          {"role": "assistant", "content": t}]}) for t in texts]  # fmt: skip
    return processor, collate([[processor.encode(s)] for s in samples], tokenizer.pad_id)


def test_captions_are_read_by_the_reader_that_came_with_the_model() -> None:
    processor, batch = caption_batch("a red ball", "a red ball on a red ball", "grass")
    reader = CaptionReader(processor, words=10, longest=6)
    ids_MS, real_MS = reader.read(batch, torch.device("cpu"))
    assert ids_MS.tolist() == [[2, 4, 5, 6, 3, 0], [2, 4, 5, 6, 7, 3], [2, 8, 3, 0, 0, 0]]
    assert real_MS.sum(dim=1).tolist() == [5, 6, 3]
    # The token that begins a text would be the next one of the vocabulary.
    assert begun(ids_MS, reader.begin_id)[:, 0].tolist() == [9, 9, 9]
    with pytest.raises(ConfigError, match=r"9 words, and \[DEC\], for 9 rows"):
        _ = CaptionReader(processor, words=9, longest=6).begin_id
    with pytest.raises(ConfigError, match="9 words for 8 rows"):
        CaptionReader(processor, words=8, longest=6)


def test_answers_are_cut_where_the_encoder_stops() -> None:
    """A caption of five letters and an end: the encoder reads 0 to 4 of them and its own end."""
    processor, batch = caption_batch("abcde")
    end = processor.tokenizer.eos_id
    word = processor.tokenizer.encode("abcde")
    pictures = batch.input_ids_BT[0, :4].tolist()
    seen = set()
    for _ in range(60):
        cut = cut_answers(batch, end)
        places = cut.learn_BT[0].nonzero()[:, 0].tolist()
        front = len(word) + 1 - len(places)
        seen.add(front)
        assert cut.input_ids_BT[0].tolist() == [*pictures, *word[:front], end, *word[front:], end]
        assert places == list(range(5 + front, 5 + 6))
    assert seen == {0, 1, 2, 3, 4}
    assert batch.learn_BT.sum() == 6, "the batch itself is left as it was"


def test_a_prefix_wants_an_encoder_decoder(tmp_path: Path, data_home: Path) -> None:
    recipe: Recipe = TINY_FORMS.find("blip2-opt")()
    with pytest.raises(ConfigError, match="reads and writes in one go"):
        plan(recipe.override(["stages.generate.objective.prefix=true"]), tmp_path)
    objective = RECIPES.find("blip2-t5")().stages[1].objective
    assert isinstance(objective, CaptionConfig)
    assert objective.prefix

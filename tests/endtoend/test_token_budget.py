"""An encoder-decoder, whose rows cannot be packed, trains on batches that a token budget fills."""

from __future__ import annotations

from pathlib import Path

from sensorium.backbones.seq2seq_lm import Seq2SeqLMConfig
from sensorium.core.batch import Batch
from sensorium.data.loader import Loader
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.processing.processor import Processor
from sensorium.recipes import RECIPES
from sensorium.training.config import Recipe
from sensorium.training.log import read_log
from sensorium.training.preflight import loader_options, prepare_stage
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions

BUDGET, STEPS, BATCHES = 1200, 3, 12


def seq2seq(*overrides: str) -> Recipe:
    """Short captions beside conversations, of which every answer is a row, longer than the one before."""
    base = RECIPES.find("tiny")().override([
        "model.template=seq2seq", "stages.instruct.max_length=400", f"stages.instruct.steps={STEPS}",
        "stages.instruct.data=[{kind: scenes, task: captions, count: 64}, {kind: scenes, count: 64}]",
    ])  # fmt: skip
    model = base.model.model_copy(update={"backbone": Seq2SeqLMConfig.tiny()})
    return base.model_copy(update={"model": model, "stages": base.stages[1:]}).override(overrides)


def batches(recipe: Recipe) -> list[Batch]:
    """The stage's first ones."""
    stage = recipe.stages[0]
    model, tokenizer = build_pretrained(recipe.model)
    parts = prepare_stage(stage, model, Processor(recipe.model, tokenizer))
    stream = Loader(parts.sources, parts.order, parts.processor, loader_options(stage)).batches(parts.order.start())
    found = [next(stream).batch for _ in range(BATCHES)]
    stream.close()
    return found


def tokens(batch: Batch) -> int:
    return int((batch.segments_BT > 0).sum())


def padding(found: list[Batch]) -> float:
    """Share of all places."""
    return 1 - sum(map(tokens, found)) / sum(batch.segments_BT.numel() for batch in found)


def test_an_encoder_decoder_trains_on_filled_batches(tmp_path: Path) -> None:
    recipe = seq2seq(f"stages.instruct.token_budget={BUDGET}")
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, TrainerOptions(tmp_path / "run", tmp_path / "cache"))
    filled, plain = batches(recipe), batches(seq2seq("stages.instruct.batch_size=4"))
    trained = [line["tokens"] for line in read_log(tmp_path / "run" / "log.jsonl")]
    assert trained == [tokens(batch) for batch in filled[:STEPS]]
    assert all(batch.segments_BT.numel() <= BUDGET for batch in filled)
    assert max(len(batch.segments_BT) for batch in filled) > 4
    assert padding(filled) < 0.8 * padding(plain)

"""Train a recipe into a folder: the one entry that CLI and Python share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from sensorium.core.atomic import write_text
from sensorium.model.adapter import inject_adapter
from sensorium.model.arch_keys import check_arch
from sensorium.model.learning import own_names
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.processor import Processor
from sensorium.text.tokenizer import Tokenizer
from sensorium.training.config import Recipe
from sensorium.training.disk import writing
from sensorium.training.distributed.held import hold, home
from sensorium.training.plan import StagePlan
from sensorium.training.precision import run_precision
from sensorium.training.preflight import check_stages
from sensorium.training.trainer import Trainer, TrainerOptions, started

Build = Callable[[], tuple[MultimodalModel, Tokenizer]]
Save = Callable[[MultimodalModel, Tokenizer, Path, set[str]], None]


def plan_recipe(recipe: Recipe, build: Build, options: TrainerOptions) -> list[StagePlan]:
    """Check every stage of a recipe on a real batch, and train nothing."""
    check_arch(recipe.model.backbone)
    torch.manual_seed(recipe.seed)
    model, tokenizer = build()
    inject_adapter(model)
    started(recipe, model, options)
    ranks = options.ranks
    fast = run_precision(recipe.stages, home(recipe, ranks) or model.device, ranks)
    held = hold(recipe, model, ranks, fast)
    processor = Processor(recipe.model, tokenizer)
    return check_stages(recipe, model, processor, options.on_plan, fast, ranks.world_size, held)[0]


def train_recipe(
    recipe: Recipe, build: Build, save: Save, options: TrainerOptions
) -> list[StagePlan]:
    """Build, train all stages, save the model to `folder/model`.

    Args:
        build: makes the model with its pretrained parts; seeded here, so that new parts
            start alike in every run of the recipe.
        save: writes the finished model.
    """
    check_arch(recipe.model.backbone)
    torch.manual_seed(recipe.seed)
    model, tokenizer = build()
    trainer = Trainer(recipe, model, tokenizer, options)
    options.ranks.on_first(lambda: _write_recipe(recipe, options.folder / "recipe.yaml"))
    plans = trainer.run()
    trainer.held.make_whole(own_names(model) | trainer.learnt)

    def save_here() -> None:
        with writing(options.folder / "model"):
            save(model, tokenizer, options.folder / "model", trainer.learnt)

    options.ranks.on_first(save_here)
    return plans


def _write_recipe(recipe: Recipe, path: Path) -> None:
    text = recipe.to_yaml()
    with writing(path, len(text.encode())):
        write_text(path, text)

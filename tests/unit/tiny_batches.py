"""The tiny recipe, and real batches of its last stage."""

from __future__ import annotations

import torch

from sensorium.core.batch import Batch
from sensorium.data.loader import Loader
from sensorium.interop.assemble import build_pretrained
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.processor import Processor
from sensorium.recipes import RECIPES
from sensorium.training.config import Recipe
from sensorium.training.preflight import loader_options, prepare_stage


def tiny(*overrides: str) -> Recipe:
    return RECIPES.find("tiny")().override(list(overrides))


def model_and_batches(count: int, *overrides: str) -> tuple[MultimodalModel, list[Batch]]:
    """The model, in evaluation mode, and the stage's first batches."""
    torch.manual_seed(0)
    recipe = tiny(*overrides)
    model, tokenizer = build_pretrained(recipe.model)
    stage = recipe.stages[-1]
    parts = prepare_stage(stage, model, Processor(recipe.model, tokenizer))
    stream = Loader(parts.sources, parts.order, parts.processor, loader_options(stage)).batches(parts.order.start())
    batches = [next(stream).batch for _ in range(count)]
    stream.close()
    return model.eval(), batches

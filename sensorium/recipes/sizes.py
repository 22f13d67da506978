"""How large a recipe's parts are, counted on the meta device: no memory, no download."""

from __future__ import annotations

import torch

from sensorium.model.config import ModelConfig
from sensorium.model.learning import count_parameters
from sensorium.model.multimodal import MultimodalModel


def on_meta(config: ModelConfig) -> MultimodalModel:
    """The whole model with weights that have a shape and nothing else."""
    with torch.device("meta"):
        return MultimodalModel(config)


def part_sizes(config: ModelConfig) -> dict[str, int]:
    """Part -> parameters, in model order."""
    return {part: total for part, total, _ in count_parameters(on_meta(config))}

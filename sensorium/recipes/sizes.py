"""How large a recipe's parts are, counted on the meta device: no memory, no download."""

from __future__ import annotations

from typing import Any

import torch

from sensorium.core.batch import Grid
from sensorium.media.native import NativeResolution
from sensorium.model.adapter import target_names
from sensorium.model.config import (
    AdaptionPromptConfig,
    BiasNormConfig,
    LaneConfig,
    LoraConfig,
    ModelConfig,
    PrefixConfig,
)
from sensorium.model.learning import count_parameters
from sensorium.model.multimodal import MultimodalModel


def on_meta(config: ModelConfig) -> MultimodalModel:
    """The whole model with weights that have a shape and nothing else."""
    with torch.device("meta"):
        return MultimodalModel(config)


def part_sizes(config: ModelConfig) -> dict[str, int]:
    """Part -> parameters, in model order. A low-rank adapter is none of them: it is merged in the
    end; adaption prompts, biases and norms that learn by themselves are."""
    return {part: total for part, total, _ in count_parameters(on_meta(config))}


def tokens_text(lane: LaneConfig) -> str:
    """How many tokens a picture becomes: a number, or parts of its height and width in pixels."""
    if not isinstance(lane.resolution, NativeResolution):
        return f"{lane.tile_grid().tokens:,}"
    small, large = (lane.tile_grid(Grid(side, side)) for side in (12, 24))
    if small == large:
        return f"{small.tokens:,}"
    px = lane.resolution.patch_px * 12 // small.h
    return f"H/{px} x W/{px}"


def adapter_size(config: ModelConfig) -> int:
    """Parameters of the adapter while it learns; of a low-rank one rank times inputs and outputs."""
    if isinstance(config.adapter, AdaptionPromptConfig | BiasNormConfig | PrefixConfig):
        return part_sizes(config)["adapter"]
    if not isinstance(config.adapter, LoraConfig):
        return 0
    lm: Any = on_meta(config).backbone.lm
    layers = [lm.get_submodule(name) for name in target_names(lm, config.adapter, "model.adapter")]
    lengths = sum(m.out_features for m in layers) if config.adapter.dora else 0
    return config.adapter.rank * sum(m.in_features + m.out_features for m in layers) + lengths

"""What CLIP and SigLIP share: two towers beside each other, and a stage in which all of them learn."""

from __future__ import annotations

from typing import Any

from sensorium.backbones.text_tower import TextTowerConfig
from sensorium.core.parts import EncoderConfig, InputProjectorConfig
from sensorium.core.weights import HubSource
from sensorium.data.config import FileSource
from sensorium.fusion.apart import ApartConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.learning import Learn
from sensorium.training.config import StageConfig
from sensorium.training.objectives.contrastive import ContrastiveConfig

PARTS = ("encoders.image", "projectors.image", "backbone", "fusion")


def text_tower(model_type: str, words_from: str, **shape: Any) -> TextTowerConfig:
    """A tower that starts at random and reads with a published tokenizer.

    Args:
        words_from: hub id of the tokenizer.
        shape: what differs from transformers' defaults, which are the base size.
    """
    arch = {"model_type": model_type, **shape}
    return TextTowerConfig(arch=arch, tokenizer_from=(HubSource(id=words_from),))


def dual(
    encoder: EncoderConfig,
    projector: InputProjectorConfig,
    resolution: FixedResolution,
    backbone: TextTowerConfig,
    fusion: ApartConfig,
) -> ModelConfig:
    """A picture's tower and a text's."""
    lane = LaneConfig(encoder=encoder, projector=projector, resolution=resolution)
    return ModelConfig(lanes={"image": lane}, backbone=backbone, fusion=fusion, template="pair")


def contrast(
    name: str, data: str, objective: ContrastiveConfig, *, lr: float, decay: float, **changes: Any
) -> StageConfig:
    """A stage that trains everything on pairs.

    Args:
        decay: of weights; vectors have none.
        changes: what else the stage sets.
    """
    parts = PARTS if changes.pop("projected", True) else tuple(p for p in PARTS if p != "projectors.image")
    return StageConfig(
        name=name,
        objective=objective,
        data=(FileSource(path=data, format="webdataset"),),
        learns=tuple(Learn(part=part, lr=lr, weight_decay=decay) for part in parts),
        **changes,
    )

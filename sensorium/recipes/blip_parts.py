"""What BLIP's recipes share: the vision transformer, BERT's sizes, and how all of it is fine-tuned.

Source: github.com/salesforce/BLIP, models/blip.py, configs/ and utils.py.
"""

from __future__ import annotations

from typing import Any, Literal

from sensorium.core.weights import HubSource
from sensorium.data.config import FileSource
from sensorium.encoders.blip_vit import BlipVitConfig
from sensorium.fusion.cross_attention import CrossAttentionConfig
from sensorium.fusion.match import MatchConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.learning import Learn
from sensorium.training.config import ScheduleConfig, StageConfig
from sensorium.training.objectives.base import ObjectiveConfig
from sensorium.training.objectives.matching import MatchingConfig

Layout = Literal["picture_of", "blip_vqa", "pair"]
MARKS = ("[DEC]", "[ENC]")
# BERT-base, with its words and the two marks.
BERT = {"model_type": "blip_text_model", "vocab_size": 30524, "num_attention_heads": 12,
        "bos_token_id": 30522}  # fmt: skip
# Of the targets of written words.
SMOOTHING = 0.1
DIFFERS = (
    "pictures are squeezed to a square, not cropped at random and changed by RandAugment",
    "no stochastic depth in the vision transformer",
    "the rate falls along a cosine of steps, not of epochs; gradients are clipped at a norm of 1",
)


def text(begins_with: str) -> dict[str, Any]:
    """The fields of a backbone of BERTs that start at random with BERT's tokenizer.

    Args:
        begins_with: the mark in front of every text.
    """
    words = HubSource(id="Salesforce/blip-image-captioning-base")
    return {"arch": BERT, "tokenizer_from": (words,), "added_tokens": MARKS, "begins_with": begins_with}


def seeing(size_px: int, backbone: Any, template: Layout) -> ModelConfig:
    """ViT-B/16, whose tokens every layer of the text attends to."""
    lane = LaneConfig(
        encoder=BlipVitConfig(image_size_px=size_px),
        projector=LinearConfig(project=False),
        resolution=FixedResolution(fit="stretch"),
    )
    fusion = MatchConfig() if template == "pair" else CrossAttentionConfig()
    return ModelConfig(lanes={"image": lane}, backbone=backbone, fusion=fusion, template=template)


def tune(
    name: str, objective: ObjectiveConfig, data: tuple[FileSource, ...], *, lr: float, **changes: Any
) -> StageConfig:
    """Everything learns at one rate, which falls to zero.

    Args:
        changes: what else the stage sets.
    """
    matches = isinstance(objective, MatchingConfig)
    parts = ("encoders.image", "backbone", *(("fusion",) if matches else ()))
    learns = tuple(Learn(part=part, lr=lr, weight_decay=0.05) for part in parts)
    if matches and objective.slow:
        learns += (Learn(part="objective", module="temperature", lr=lr),)
    settings: dict[str, Any] = {"schedule": ScheduleConfig(final_ratio=0.0), "betas": (0.9, 0.999)}
    return StageConfig(name=name, objective=objective, data=data, learns=learns, **(settings | changes))

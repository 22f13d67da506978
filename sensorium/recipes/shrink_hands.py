"""The tiny form of hands, and pictures for them to learn from."""

from __future__ import annotations

from typing import Any, TypeVar

from sensorium.core.config import Config
from sensorium.data.config import PictureBookSource, SourceConfig
from sensorium.data.edits import EditsSource
from sensorium.data.located import LocatedScenesSource
from sensorium.model.config import ModelConfig
from sensorium.model.hand import HandConfig

C = TypeVar("C", bound=Config)
# What is no size stays as it is.
KEPT = ("kind", "mode", "before", "guided", "query_std", "bias", "scale", "decoder_norm_eps")


def tiny_hand(hand: HandConfig) -> HandConfig:
    """The same tokens before the same kinds of parts."""
    projector = None if hand.projector is None else _tiny(hand.projector)
    return hand.model_copy(update={"projector": projector, "generator": _tiny(hand.generator)})


def made_source(objective: str, model: ModelConfig, take: int) -> SourceConfig | None:
    """Rows whose answers hold what an objective teaches to make; None: it teaches nothing of the kind."""
    if objective == "mask":
        return LocatedScenesSource(task="segment", take=take)
    if objective == "diffuse" and model.hands["image"].generator.looks:
        return EditsSource(source=PictureBookSource(part="shipped", task="captions"), take=take)
    return None


def _tiny(config: Any) -> Any:
    """The kind's own tiny form, with what is no size of the full one."""
    small, given = type(config).tiny().to_dict(), config.to_dict()
    if "scale" in small and isinstance(small["scale"], str):
        given.pop("scale", None)
    return type(config).from_dict(small | {key: given[key] for key in KEPT if key in given})

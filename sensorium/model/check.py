"""Which fusion goes with which backbone, where they need each other."""

from __future__ import annotations

from sensorium.backbones.cross_lm import BlipTextBackbone
from sensorium.backbones.cross_tower import CrossTowerConfig
from sensorium.core.errors import ConfigError
from sensorium.fusion.apart import ApartConfig
from sensorium.fusion.cross_attention import CrossAttentionConfig
from sensorium.fusion.match import MatchConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import ModelConfig


def check_fusion(config: ModelConfig) -> None:
    """Text towers need `apart`, BERTs with cross-attention `cross_attention`, and the other way round.

    Raises:
        ConfigError: one is without the other.
    """
    matches = isinstance(config.backbone, CrossTowerConfig)
    if matches != isinstance(config.fusion, MatchConfig):
        raise _unlike(config, "match with cross_tower")
    if matches:
        widths = {getattr(part, "joint", None) for part in (config.backbone, config.fusion)}
        if len(widths) > 1:
            raise ConfigError(
                "texts and pictures in spaces of different width",
                expected="one number",
                where="model.backbone.joint and model.fusion.joint",
            )
        return
    crosses = isinstance(config.backbone, BlipTextBackbone)
    if crosses != isinstance(config.fusion, CrossAttentionConfig):
        raise _unlike(config, "cross_attention with a backbone whose layers have cross-attention")
    check_apart(config)


def check_apart(config: ModelConfig) -> None:
    """A text tower and the fusion `apart` need each other, and one embedding for a picture.

    Raises:
        ConfigError: one is without the other, or a picture becomes several tokens.
    """
    embeds = config.text_frame is not None
    if embeds != isinstance(config.fusion, ApartConfig):
        raise _unlike(config, "apart with text_tower, and another with a language model")
    if not embeds:
        return
    for kind, lane in config.lanes.items():
        tokens = lane.tile_grid().tokens
        if tokens != 1 or not isinstance(lane.resolution, FixedResolution):
            raise ConfigError(
                f"{tokens} tokens of {kind} at resolution {lane.resolution.kind}",
                expected="one token, because a picture is compared with a text as a whole",
                where=f"model.lanes.{kind}",
                fix="choose feature: pooled and resolution fixed",
            )


def _unlike(config: ModelConfig, expected: str) -> ConfigError:
    return ConfigError(
        f"fusion {config.fusion.kind} with backbone {config.backbone.kind}",
        expected=expected,
        where="model.fusion",
    )

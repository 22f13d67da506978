"""Which fusion goes with which backbone, where they need each other."""

from __future__ import annotations

from collections.abc import Collection

import torch

from sensorium.backbones.cross_lm import BlipTextBackbone
from sensorium.backbones.cross_tower import CrossTowerConfig
from sensorium.backbones.quantised import DEVICES
from sensorium.core.errors import ConfigError
from sensorium.fusion.apart import ApartConfig
from sensorium.fusion.cross_attention import CrossAttentionConfig
from sensorium.fusion.match import MatchConfig
from sensorium.fusion.visual_expert import VisualExpertConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LoraConfig, ModelConfig, PrefixConfig


def check_quantised(config: ModelConfig) -> None:
    """What goes with a backbone in four bits.

    Raises:
        ConfigError: an adapter or a fusion needs its weights as numbers.
    """
    if not is_quantised(config):
        return
    found = [(config.adapter, "model.adapter", "lora or prefix", LoraConfig | PrefixConfig),
             (config.fusion, "model.fusion", "another fusion", None)]  # fmt: skip
    for part, where, expected, fits in found:
        bad = isinstance(part, VisualExpertConfig) if fits is None else part is not None and not isinstance(part, fits)
        if part is not None and bad:
            raise ConfigError(f"{part.kind} with a quantised backbone, whose weights it would have to read",
                              expected=expected, where=where, fix="leave backbone.quantise out")  # fmt: skip


def is_quantised(config: ModelConfig) -> bool:
    """Whether the language model's weights are in four bits."""
    return getattr(config.backbone, "quantise", None) is not None


def check_quantised_run(device: torch.device, learns: Collection[str]) -> None:
    """Whether a quantised language model can run there, while these parts learn.

    Raises:
        ConfigError: naming the device or the part.
    """
    if device.type not in DEVICES:
        raise ConfigError(f"a quantised language model on {device.type}", expected=f"one of {', '.join(DEVICES)}",
                          where="model.backbone.quantise", fix="run on the CPU, or leave quantise out")  # fmt: skip
    if "backbone" in learns:
        raise ConfigError("the backbone learns, and is quantised", expected="part adapter: lora or prefix",
                          where="learns", fix="let an adapter learn, or leave backbone.quantise out")  # fmt: skip


def refuse_quantised(config: ModelConfig, what: str, where: str) -> None:
    """Refuse what needs the language model's weights as numbers.

    Raises:
        ConfigError: they are in four bits.
    """
    if is_quantised(config):
        raise ConfigError(
            f"{what} of a model whose language model is quantised",
            expected="weights as numbers: what is read back from four bits is not what the source holds",
            where=where,
            fix="export the adapter with --adapter-only; put it onto a model without backbone.quantise with import --onto",
        )


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

"""Whether an encoder, a projector and a resolution fit one another and an LLM, and what would fit instead."""

from __future__ import annotations

from typing import Any

import torch

from sensorium.core.batch import Grid, MediaShape, TilePlan
from sensorium.core.errors import ConfigError
from sensorium.core.parts import BackboneConfig
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.media.native import NativeResolution
from sensorium.model.config import LaneConfig, ModelConfig


def check_lane(kind: str, lane: LaneConfig, backbone: BackboneConfig) -> None:
    """Do the lane's parts fit together?

    Raises:
        ConfigError: what does not, and the nearest lanes that would do.
    """
    try:
        _fit(lane, backbone)
    except ConfigError as error:
        found = _nearest(lane, backbone)
        fix = "; or ".join(filter(None, [error.fix, found and f"nearest for encoder {lane.encoder.kind}: {found}"]))
        raise ConfigError(error.found, expected=error.expected, fix=fix,
                          where=error.where or f"model.lanes.{kind}") from None  # fmt: skip


def _fit(lane: LaneConfig, backbone: BackboneConfig) -> None:
    """Ask every part what it would refuse later.

    Raises:
        ConfigError: by the first that does.
    """
    lane.encoder.check()
    if lane.detail is not None:
        lane.detail.check()
    resolution = lane.resolution
    if isinstance(resolution, NativeResolution):
        # The sides of every picture's grid are multiples of those of the smallest.
        plan = TilePlan(patches=Grid(resolution.merge, resolution.merge))
    else:
        size_px = lane.encoder.preprocess().size_px
        plan = resolution.plan(MediaShape(size_px, size_px), size_px, lane.tile_grid())
    tile = lane.tile_grid(plan.patches)
    if backbone.mrope:
        plan.token_map(tile)
    # Without storage; a projector refuses widths that its heads do not divide.
    with torch.device("meta"):
        lane.projector.build(lane.encoder.out_dim, backbone.d_media)


def check_picture_words(config: ModelConfig) -> None:
    """Can this LLM read and write pictures as tokens?

    Raises:
        ConfigError: why it cannot.
    """
    told, where = config.picture_words, "model.picture_words"
    if told is None:
        return
    if config.text_frame is not None or config.backbone.one_answer or config.backbone.mrope:
        raise ConfigError(f"pictures as tokens of a backbone of kind {config.backbone.kind}", where=where,
                          expected="a decoder that writes, with one position a token", fix="choose a causal_lm without M-RoPE")  # fmt: skip
    if "image" in config.hands:
        raise ConfigError("two ways to make pictures", expected="hands.image or picture_words", where=where)
    if told.shared and "image" in config.lanes:
        raise ConfigError("pictures that are read by a lane and as tokens", where=where,
                          expected="words without lanes.image, or tables with it", fix="leave one of them out")  # fmt: skip
    last = max((first + count for first, count in told.words), default=0)
    if last > config.backbone.vocab_size:
        raise ConfigError(f"words up to {last} in a vocabulary of {config.backbone.vocab_size}", where=f"{where}.words",
                          fix="raise vocab_size in the backbone's arch")  # fmt: skip


def _fits(lane: LaneConfig, backbone: BackboneConfig) -> bool:
    try:
        _fit(lane, backbone)
    except ConfigError:
        return False
    return True


def _nearest(lane: LaneConfig, backbone: BackboneConfig) -> str:
    """The one change that mends the lane: of the encoder's features, of the projector, or of the resolution."""
    if getattr(lane.encoder, "feature", "patch") != "patch":
        patch: Any = lane.encoder.model_copy(update={"feature": "patch"})
        if _fits(lane.model_copy(update={"encoder": patch}), backbone):
            return f"feature: patch with projector {lane.projector.kind}"
    fitting = [name for name in INPUT_PROJECTORS
               if _fits(lane.model_copy(update={"projector": INPUT_PROJECTORS.find(name)()}), backbone)]  # fmt: skip
    return f"projector {', '.join(fitting)}" if fitting else ""

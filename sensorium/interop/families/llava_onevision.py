"""LLaVA-OneVision in transformers' layout (`LlavaOnevisionForConditionalGeneration`): pictures,
no videos."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sensorium.core.errors import ConfigError
from sensorium.interop.families.base import refuse_export
from sensorium.interop.families.llava_next import grids_of, pinpoints_of
from sensorium.interop.families.llava_parts import assembled, exported_lane, key_map, map_tower
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.media.anyres import AnyResolution
from sensorium.media.image import BLACK
from sensorium.model.config import ModelConfig

# transformers' class defaults, which config.json may leave out.
DEFAULTS = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
PINPOINTS = tuple((384 * rows, 384 * cols) for rows in range(1, 7) for cols in range(1, 7))


class LlavaOnevision:
    """SigLIP on AnyRes tiles whose map is shrunk to a cap, a two-layer MLP, any causal language
    model. Of several pictures in one conversation each is one tile."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        vision = {"model_type": "siglip_vision_model"} | dict(config["vision_config"])
        encoder = map_tower({**DEFAULTS, **config, "vision_config": vision})
        grids = grids_of(config.get("image_grid_pinpoints") or PINPOINTS, encoder.image_size_px)
        aspect = config.get("vision_aspect_ratio", "anyres_max_9")
        return assembled(config, encoder, _tiles(grids, aspect))

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane, parts = exported_lane("llava_onevision", config)
        tiles = lane.resolution
        if not isinstance(tiles, AnyResolution) or tiles.max_tiles is None:
            raise refuse_export(
                "llava_onevision", "its pictures are not AnyRes tiles with max_tiles"
            )
        aspect = f"anyres_max_{tiles.max_tiles}"
        # The processor of that family knows no other ways.
        plain = _tiles(tiles.grids, aspect)
        if tiles != plain:
            raise refuse_export("llava_onevision", f"its tiles are {tiles!r} and not {plain!r}")
        return {
            "architectures": ["LlavaOnevisionForConditionalGeneration"],
            "model_type": "llava_onevision",
            "image_grid_pinpoints": pinpoints_of(tiles.grids, lane.encoder.preprocess().size_px),
            "vision_aspect_ratio": aspect,
            **parts,
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        return key_map(Rule("image_newline", "newlines.image"))


def _tiles(grids: tuple[tuple[int, int], ...], aspect: str) -> AnyResolution:
    """The family's way to lay pictures out.

    Raises:
        ConfigError: `aspect` is not `anyres_max_` and a number.
    """
    cap = re.fullmatch(r"anyres_max_([1-9]\d*)", aspect)
    if cap is None:
        raise ConfigError(f"vision_aspect_ratio {aspect!r}", expected="anyres_max_9 or the like")
    return AnyResolution(
        grids=grids,
        thumbnail_fit="stretch",
        padding=BLACK,
        max_tokens=None,
        max_tiles=int(cap[1]),
        several="square",
    )

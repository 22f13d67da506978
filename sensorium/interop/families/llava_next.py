"""LLaVA-NeXT (1.6) in transformers' layout (`LlavaNextForConditionalGeneration`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sensorium.core.errors import ConfigError
from sensorium.interop.families.base import refuse_export
from sensorium.interop.families.llava_parts import assembled, exported_lane, key_map, map_tower
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.media.anyres import AnyResolution
from sensorium.media.image import BLACK
from sensorium.model.config import ModelConfig

# transformers' class default, which config.json may leave out.
PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))


class LlavaNext:
    """CLIP or SigLIP on AnyRes tiles, a two-layer MLP, any causal language model."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        encoder = map_tower(config)
        grids = grids_of(config.get("image_grid_pinpoints") or PINPOINTS, encoder.image_size_px)
        return assembled(config, encoder, _tiles(grids))

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane, parts = exported_lane("llava_next", config)
        tiles = lane.resolution
        if not isinstance(tiles, AnyResolution):
            raise refuse_export("llava_next", "its pictures are not cut into AnyRes tiles")
        # The processor of that family knows no other ways.
        plain = _tiles(tiles.grids)
        if tiles != plain:
            raise refuse_export("llava_next", f"its tiles are {tiles!r} and not {plain!r}")
        return {
            "architectures": ["LlavaNextForConditionalGeneration"],
            "model_type": "llava_next",
            "image_grid_pinpoints": pinpoints_of(tiles.grids, lane.encoder.preprocess().size_px),
            **parts,
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        return key_map(Rule("image_newline", "newlines.image"))


def _tiles(grids: tuple[tuple[int, int], ...]) -> AnyResolution:
    """The family's way to lay pictures out."""
    return AnyResolution(grids=grids, thumbnail_fit="stretch", padding=BLACK, max_tokens=None)


def pinpoints_of(grids: Sequence[tuple[int, int]], size_px: int) -> list[list[int]]:
    """(rows, columns) of tiles -> [height, width] in pixels, in the same order."""
    return [[rows * size_px, cols * size_px] for rows, cols in grids]


def grids_of(pinpoints: Sequence[Sequence[int]], size_px: int) -> tuple[tuple[int, int], ...]:
    """(height, width) in pixels -> (rows, columns) of tiles, in the same order.

    Raises:
        ConfigError: a canvas is not made of whole tiles.
    """
    for height, width in pinpoints:
        if height % size_px or width % size_px:
            raise ConfigError(
                f"image_grid_pinpoints hold {height}x{width} pixels",
                expected=f"multiples of the tower's {size_px} pixels",
            )
    return tuple((height // size_px, width // size_px) for height, width in pinpoints)

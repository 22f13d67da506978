"""What a foreign checkpoint's image processor says of its pixels: mean, deviation, resampling, and
of pictures at their own size how many there may be.

config.json does not hold them, and towers of one kind were trained with different ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensorium.core.errors import WeightsError
from sensorium.generators.published_vq import pixel_scales
from sensorium.media.native import NativeResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.picture_words import PictureWordsConfig

RESAMPLE = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers; encoders know no others."""
SHARP = {1: "lanczos"}
"""One more, which picture tokenizers know."""


def with_preprocessor(config: ModelConfig, folder: Path) -> ModelConfig:
    """The config with the pixels' mean, deviation and resampling that the folder names.

    A folder without an image processor's file leaves the encoders' own.

    Raises:
        WeightsError: a file is not JSON.
        ConfigError: a value that encoders do not know.
    """
    found = _image_processor(folder)
    if found is not None and config.picture_words is not None:
        config = _with_words(config, found, str(folder))
    lane = config.lanes.get("image")
    if found is None or lane is None:
        return config
    values: dict[str, Any] = {
        ours: found[theirs]
        for theirs, ours in (("image_mean", "mean"), ("image_std", "std"))
        if found.get(theirs) is not None
    }
    if found.get("resample") is not None:
        values["interpolation"] = RESAMPLE.get(found["resample"], found["resample"])
    encoder = lane.encoder
    known = {k: v for k, v in values.items() if k in type(encoder).model_fields}
    changed = lane.to_dict() | {"encoder": encoder.to_dict() | known}
    if isinstance(lane.resolution, NativeResolution):
        changed |= {"resolution": lane.resolution.to_dict() | _pixel_counts(found)}
    image = LaneConfig.from_dict(changed, where=str(folder))
    return config.model_copy(update={"lanes": {**config.lanes, "image": image}})


def _with_words(config: ModelConfig, found: Mapping[str, Any], where: str) -> ModelConfig:
    """The config whose picture tokenizer wants its pixels as the file says. Where an encoder reads, the file is that one's,
    and of the tokenizer it says nothing."""
    told = config.picture_words
    if told is None or not told.shared:
        return config
    changed = told.to_dict()
    changed["tokenizer"] |= pixel_scales(found)
    if found.get("resample") is not None:
        changed["interpolation"] = (RESAMPLE | SHARP).get(found["resample"], found["resample"])
    if isinstance(told.resolution, NativeResolution):
        changed["resolution"] |= _pixel_counts(found)
    return config.model_copy(update={"picture_words": PictureWordsConfig.from_dict(changed, where=where)})


def _pixel_counts(found: Mapping[str, Any]) -> dict[str, int]:
    """Least and most pixels; newer files hold them as the edges of `size`."""
    size: Mapping[str, Any] = found.get("size") or {}
    counts = {
        "min_pixels": found.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels"),
        "max_pixels": found.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels"),
    }
    return {name: count for name, count in counts.items() if count is not None}


def _image_processor(folder: Path) -> Mapping[str, Any] | None:
    """The image processor's values; newer checkpoints keep them inside the processor's."""
    nested = _read(folder / "processor_config.json")
    if nested is not None and isinstance(nested.get("image_processor"), dict):
        return nested["image_processor"]
    return _read(folder / "preprocessor_config.json")


def _read(file: Path) -> Mapping[str, Any] | None:
    if not file.exists():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"not JSON: {error}", where=str(file)) from None
    return values if isinstance(values, dict) else None

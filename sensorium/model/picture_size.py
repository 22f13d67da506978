"""The same model for pictures of another size: what some systems train on first, or last.

Weights stay as they are; the encoder stretches its positions (`EncoderConfig.at_size`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sensorium.model.config import ModelConfig
from sensorium.model.multimodal import MultimodalModel

KIND = "image"


def at_size(config: ModelConfig, size_px: int) -> ModelConfig:
    """The model's config with pictures of `size_px` pixels a side.

    Raises:
        ConfigError: the model takes no pictures, or its encoder one size only.
    """
    lane = config.lane(KIND)
    changed = lane.model_copy(update={"encoder": lane.encoder.at_size(size_px)})
    return config.model_copy(update={"lanes": {**config.lanes, KIND: changed}})


@contextmanager
def pictures_of(model: MultimodalModel, size_px: int | None) -> Iterator[None]:
    """While the block lasts, the model takes pictures of this size; None: of its own.

    Raises:
        ConfigError: as for `at_size`.
    """
    if size_px is None:
        yield
        return
    own, changed = model.config, at_size(model.config, size_px)
    encoder: Any = model.encoders[KIND]
    model.config, encoder.config = changed, changed.lane(KIND).encoder
    try:
        yield
    finally:
        model.config, encoder.config = own, own.lane(KIND).encoder

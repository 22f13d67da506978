"""The way of a model that finds pictures, and the vectors by which it finds them.

Shape legend: M pictures, C width of the space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor

from sensorium.core.batch import MediaBatch
from sensorium.core.errors import ConfigError
from sensorium.model.multimodal import MultimodalModel
from sensorium.model.pooled import pooled
from sensorium.output_projectors.retrieval import RetrievalConfig, RetrievalHead


@dataclass(frozen=True, slots=True)
class Finds:
    """A way, by its name, what it makes, and its projector."""

    name: str
    kind: str
    head: RetrievalHead


def finding_way(model: MultimodalModel) -> Finds:
    """The way that finds pictures.

    Raises:
        ConfigError: the model has none, or its encoder yields vectors of another width than the way takes.
    """
    for name, way in model.config.ways.items():
        if way.kind != "image" or not isinstance(way.projector, RetrievalConfig):
            continue
        width = model.config.lane("image").encoder.out_dim
        if way.projector.image_width != width:
            raise ConfigError(f"image_width {way.projector.image_width} for an encoder of width {width}", expected=str(width),
                              where=f"hands.{name}.projector")  # fmt: skip
        return Finds(name, way.kind, cast(RetrievalHead, model.hands[name]))
    raise ConfigError("a model that finds no pictures", where="model.hands",
                      fix="give it hands.image with projector: {kind: retrieval} and generator: {kind: retrieval_index}")  # fmt: skip


def picture_vectors(model: MultimodalModel, media: MediaBatch) -> Tensor:
    """What pictures are found by, (M, C), of unit length.

    Raises:
        ConfigError: the model finds none.
    """
    return finding_way(model).head.pictures(pooled(model, media))

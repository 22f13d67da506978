"""The way of a model that finds pictures, and the vectors by which it finds them.

Shape legend: M pictures, C width of the space, E width of the encoder, D of the LLM, V of what a head takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.batch import MediaBatch
from sensorium.core.errors import ConfigError
from sensorium.model.glance import SumsUp
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
        lane = model.config.lane("image")
        if way.projector.summary and not getattr(lane.projector, "summary", False):
            raise ConfigError(f"summary with a projector of kind {lane.projector.kind} that sums no pictures up", where=f"hands.{name}.projector",
                              expected="one that does", fix="set projector: {kind: avg_pool, summary: true}, or leave summary out")  # fmt: skip
        width = model.config.backbone.d_model if way.projector.summary else lane.encoder.out_dim
        if way.projector.image_width != width:
            whose = "a projector" if way.projector.summary else "an encoder"
            raise ConfigError(f"image_width {way.projector.image_width} for {whose} of width {width}", expected=str(width),
                              where=f"hands.{name}.projector")  # fmt: skip
        return Finds(name, way.kind, cast(RetrievalHead, model.hands[name]))
    raise ConfigError("a model that finds no pictures", where="model.hands",
                      fix="give it hands.image with projector: {kind: retrieval} and generator: {kind: retrieval_index}")  # fmt: skip


def picture_vectors(model: MultimodalModel, media: MediaBatch) -> Tensor:
    """What pictures are found by, (M, C), of unit length.

    Raises:
        ConfigError: the model finds none.
    """
    way = finding_way(model)
    return way.head.pictures(compared(model, way.name, media))


def compared(model: MultimodalModel, way: str, media: MediaBatch) -> Tensor:
    """What the head of a way takes of pictures, (M, V): pooled features, or what the projector sums them up to."""
    mean_ME = pooled(model, media)
    projector = model.config.ways[way].projector
    if not (isinstance(projector, RetrievalConfig) and projector.summary):
        return mean_ME
    with torch.no_grad():
        summed_MD = cast(SumsUp, model.projectors["image"]).summed_up(mean_ME)
    # As long as numbers of mean size 1 would be, whatever the projector's scale.
    return F.normalize(summed_MD, dim=-1) * summed_MD.shape[-1] ** 0.5

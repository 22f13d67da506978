"""Frozen encoder outputs, computed once and kept on disk.

A feature is a pure function of (encoder config and weights, input pixels), and its key is
their hash. Values are stored in half precision and always rounded to it, on the first use
too, so that a run does not depend on what was cached before.

Shape legend: N features laid end to end, D width.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sensorium.core.atomic import atomic_path
from sensorium.core.batch import Example, Features, Grid, MediaBatch
from sensorium.core.errors import WeightsError
from sensorium.data.mixture import Pick
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.pretrained import read_file


class FeatureCache:
    """A loader transform that replaces pixels by features."""

    def __init__(self, model: MultimodalModel, folder: Path) -> None:
        self.model = model
        self._folders = {
            kind: folder / _fingerprint(model, kind) for kind in model.encoders
        }

    def __call__(self, example: Example, pick: Pick) -> Example:
        example.media = {kind: self._with_features(kind, m) for kind, m in example.media.items()}
        return example

    def _with_features(self, kind: str, media: MediaBatch) -> MediaBatch:
        digest = _digest(media)
        file = self._folders[kind] / digest[:2] / f"{digest}.safetensors"
        features = _read(file) if file.exists() else None
        if features is None:
            with torch.no_grad():
                pixels_NCHW = media.pixels_NCHW.to(self.model.device)
                made = self.model.encode(kind, replace(media, pixels_NCHW=pixels_NCHW))
            features = Features(made.values_ND.half().cpu(), made.grids)
            _write(file, features)
        features = Features(features.values_ND.float(), features.grids)
        return replace(media, pixels_NCHW=media.pixels_NCHW[:0], features=features)


def _digest(media: MediaBatch) -> str:
    """Of the pixels and, where they are patches, how these lie."""
    digest = hashlib.sha256(media.pixels_NCHW.numpy().tobytes())
    if media.patches is not None:
        digest.update(repr(media.patches).encode())
    return digest.hexdigest()


def _fingerprint(model: MultimodalModel, kind: str) -> str:
    digest = hashlib.sha256(repr(model.config.lane(kind).encoder.to_dict()).encode())
    for name, tensor in model.encoders[kind].state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
                      if tensor.ndim else str(tensor.item()).encode())  # fmt: skip
    return digest.hexdigest()[:24]


def _write(file: Path, features: Features) -> None:
    grids = torch.tensor([[g.h, g.w, g.prefix] for g in features.grids])
    tensors: dict[str, Tensor] = {"values": features.values_ND.contiguous(), "grids": grids}
    with atomic_path(file) as temporary:
        save_file(tensors, temporary)


def _read(file: Path) -> Features | None:
    """A stored feature; a damaged file is recomputed, because it can be."""
    try:
        tensors = read_file(file)
    except WeightsError:
        file.unlink(missing_ok=True)
        return None
    grids = tuple(Grid(*row) for row in tensors["grids"].tolist())
    return Features(tensors["values"], grids)

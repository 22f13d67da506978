"""What a tower's features depend on beside the picture."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from sensorium.features.record import raw_bytes
from sensorium.model.multimodal import MultimodalModel


def fingerprint(model: MultimodalModel, kind: str, number_format: str) -> str:
    """A hash of config and weights of an encoder and of what rounds its values: number format, kind of device,
    and torch itself.

    Args:
        number_format: in which it computes and is kept (`fp32`, `bf16`; with `-half` where rounded).
    """
    config = _without_sources(model.config.lane(kind).encoder.to_dict())
    about = [config, number_format, model.device.type, torch.__version__]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, tensor in model.encoders[model.config.lane_of(kind)].state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(raw_bytes(tensor.detach().cpu()))
    return digest.hexdigest()[:32]


def _without_sources(config: Any) -> Any:
    """Where weights came from says nothing: they are hashed themselves."""
    if isinstance(config, dict):
        return {str(k): _without_sources(v) for k, v in config.items() if k != "weights"}  # pyright: ignore
    if isinstance(config, list | tuple):
        return [_without_sources(value) for value in config]  # pyright: ignore
    return config

"""By what a feature store knows a picture: its content, and all that is done to it before the encoder.

The tower itself is no part of the key: a store keeps entries of each tower apart.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from sensorium.core.parts import LaneShape
from sensorium.media.augment import Augmentation
from sensorium.media.image import Encoded, Image
from sensorium.media.limits import ImageLimits

VERSION = 1
"""Counted up when a picture of the same bytes and settings becomes other pixels."""


def lane_mark(lane: LaneShape, limits: ImageLimits) -> bytes:
    """What a lane does to every picture."""
    done: dict[str, Any] = {
        "version": VERSION,
        "resolution": lane.resolution.to_dict(),
        "preprocess": asdict(lane.encoder.preprocess()),
        "limits": limits.to_dict(),
    }
    if lane.fast_decode:
        done["fast_decode"] = True
    return hashlib.sha256(json.dumps(done, sort_keys=True).encode()).digest()


def view_mark(augmentation: Augmentation | None, *, still: bool) -> str:
    """How one picture is seen.

    Args:
        still: it is not moved by augmentation.
    """
    return "" if augmentation is None else f"{augmentation.seed} {augmentation.mirror} {still}"


def layout_key(key: bytes, plan: str) -> bytes:
    """The key of a picture that is laid out otherwise than the first time."""
    return hashlib.sha256(key + plan.encode()).digest()


def picture_key(lane: bytes, view: str, content: Encoded | tuple[Image, ...]) -> bytes:
    """32 bytes.

    Args:
        content: the file, or the decoded picture, over several grounds where it may be transparent.
    """
    digest = hashlib.sha256(lane)
    digest.update(view.encode())
    if isinstance(content, Encoded):
        digest.update(b"\0file")
        digest.update(content.content)
    else:
        for image in content:
            digest.update(b"\0pixels" + image.digest().encode())
    return digest.digest()

"""Pictures that answers hold -> the pixels that a generator learns from.

Shape legend: N pictures, C colours, H/W pixels, S side of a square.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.core.batch import Preprocess, TilePlan, Wanted
from sensorium.media.image import load_image
from sensorium.media.limits import ImageLimits
from sensorium.media.resolution import FixedResolution

HALF = (0.5, 0.5, 0.5)


def square_pixels(picture: Any, size_px: int, root: Path | None = None, limits: ImageLimits | None = None) -> Tensor:
    """(3, S, S) uint8 of whatever `load_image` reads, whole on white.

    Raises:
        MediaError: it cannot be read.
    """
    image = load_image(picture, root=root, limits=limits)
    pixels_1HWC = FixedResolution().cut(image, TilePlan(), Preprocess(size_px, HALF, HALF, "lanczos"))
    return torch.from_numpy(np.ascontiguousarray(pixels_1HWC[0].transpose(2, 0, 1)))


def wanted_pixels(wanted: Sequence[Wanted], size_px: int, limits: ImageLimits | None = None) -> Tensor:
    """(N, 3, S, S) uint8 of pictures that answers hold."""
    return torch.stack([square_pixels(one.medium, size_px, one.root, limits) for one in wanted])

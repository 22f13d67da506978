"""Pictures as generators are trained on them: the middle of each, as a square.

Shape legend: S pixels of a side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.media.image import ImageLimits, load_image
from sensorium.media.resolution import crop


def square_pixels(
    source: Any, side_px: int, root: Path | None = None, limits: ImageLimits | None = None, interpolation: str = "bicubic"
) -> Tensor:
    """(3, S, S) uint8: the short side scaled to `side_px`, the middle kept.

    Args:
        source: a part's value: path, bytes, PIL image, array.

    Raises:
        MediaError: it cannot be read.
    """
    image = load_image(source, root=root, limits=limits)
    return torch.from_numpy(np.asarray(crop(image, side_px, side_px, interpolation)).copy()).permute(2, 0, 1)

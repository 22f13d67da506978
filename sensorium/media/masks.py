"""Masks as PNG files: 0 is outside, any other value inside.

Shape legend: H/W pixels.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from sensorium.core.errors import MediaError
from sensorium.core.masks import Mask
from sensorium.media.image import check_size, damage_named, read_encoded
from sensorium.media.limits import ImageLimits

MODES = ("1", "L", "P", "I;16", "I")
INSIDE = 255


def load_mask(source: Any, *, root: Path | None = None, limits: ImageLimits | None = None) -> Mask:
    """The mask of a PNG file with one number a pixel: black and white, grey, or the places in a palette.

    Args:
        source: path (relative ones start from `root`), or encoded bytes.

    Raises:
        MediaError: it cannot be read, is no PNG, or has colours.
    """
    limits = limits or ImageLimits()
    encoded = read_encoded(source, root=root, limits=limits)
    if encoded is None:
        raise MediaError(f"mask is a {type(source).__name__}", expected="a path or bytes of a PNG")
    with damage_named(encoded.where, limits):
        # Other formats change values: a mask saved as JPEG has specks all around.
        picture = PILImage.open(io.BytesIO(encoded.content), formats=("PNG",))
        check_size(picture.size, limits, encoded.where)
        if picture.mode not in MODES:
            raise MediaError(f"a mask with colours or an alpha channel ({picture.mode})", where=encoded.where,
                             expected="a PNG with one number a pixel, 0 outside", fix="save it as 8 bit grey")  # fmt: skip
        return Mask.from_array(np.asarray(picture) != 0)


def mask_png(mask: Mask) -> bytes:
    """The PNG of a mask, 8 bit grey, white inside."""
    stream = io.BytesIO()
    PILImage.fromarray(mask.array().astype(np.uint8) * INSIDE, "L").save(stream, "PNG", optimize=True)
    return stream.getvalue()

"""Size limits for untrusted media."""

from __future__ import annotations

from sensorium.core.config import Config


class ImageLimits(Config):
    """What an image may cost before any of its pixels are decoded."""

    max_bytes: int = 64 * 2**20
    max_pixels: int = 64_000_000
    max_side_px: int = 65_000

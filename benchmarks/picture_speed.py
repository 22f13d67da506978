"""Seconds from a JPEG file to encoder inputs, decoded whole and with `fast_decode`, for several encoders' sizes.

    python benchmarks/picture_speed.py [--width 3000] [--height 2000] [--tries 7]

The picture is noise with a photograph's spectrum. Both ways take turns; the median counts. `difference` is the mean absolute
one between pixel values (0 to 255) of what the encoder sees.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from sensorium.encoders.vit import VitConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.media.anyres import AnyResolution
from sensorium.media.limits import ImageLimits
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig
from sensorium.processing.pictures import Pictures, View

SEEN = {
    "224 px": (224, FixedResolution()), "336 px": (336, FixedResolution()), "448 px": (448, FixedResolution()),
    "2 x 2 tiles of 336 px": (336, AnyResolution(grids=((1, 1), (2, 2)), thumbnail=True)),
}  # fmt: skip


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    """Amplitudes fall with frequency, as they do in photographs (Field 1987, doi:10.1364/JOSAA.4.002379)."""
    draw = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    channels: list[NDArray[np.float64]] = []
    for _ in range(3):
        waves = draw.normal(size=frequency.shape) + 1j * draw.normal(size=frequency.shape)
        values = np.fft.irfft2(waves / frequency**1.1, (height, width))
        channels.append((values - values.mean()) / values.std() * 50 + 128)
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=3000)
    parser.add_argument("--height", type=int, default=2000)
    parser.add_argument("--tries", type=int, default=7)
    options = parser.parse_args()
    buffer = io.BytesIO()
    PILImage.fromarray(photograph(options.height, options.width)).save(buffer, "JPEG", quality=90)
    content, view, result = buffer.getvalue(), View(None, still=True, count=1), {}
    for name, (size_px, resolution) in SEEN.items():
        encoder = VitConfig(image_size_px=size_px, patch_size_px=16 if size_px % 16 == 0 else 14, feature="patch")
        ways = {fast: Pictures("image", LaneConfig(encoder=encoder, projector=MlpConfig(), resolution=resolution, fast_decode=fast),
                               ImageLimits()) for fast in (False, True)}  # fmt: skip
        seconds: dict[bool, list[float]] = {False: [], True: []}
        seen: dict[bool, NDArray[np.float32]] = {}
        for _ in range(options.tries):
            for fast, pictures in ways.items():
                start = time.perf_counter()
                made = pictures.prepare(content, None, view, None)
                seconds[fast].append(time.perf_counter() - start)
                seen[fast] = made.pixels_NCHW.numpy().astype(np.float32)
        whole, fast = statistics.median(seconds[False]), statistics.median(seconds[True])
        result[name] = {"whole_ms": round(1000 * whole, 1), "fast_ms": round(1000 * fast, 1), "gain": round(whole / fast, 2),
                        "difference": round(float(np.abs(seen[True] - seen[False]).mean()), 2)}  # fmt: skip
    print(json.dumps({"picture": f"{options.width}x{options.height}", "bytes": len(content), "seen": result}, indent=1))


if __name__ == "__main__":
    main()

"""Sound as WAV files of 16 bits, through the standard library."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.core.atomic import atomic_path
from sensorium.core.errors import MediaError

STEPS = 32767
"""Of a sample between 0 and 1."""


def wav_bytes(samples_N: np.ndarray[Any, Any], sample_rate_hz: int) -> bytes:
    """One channel, -1..1, as the bytes of a WAV file; what lies beyond is cut off.

    Raises:
        MediaError: samples that are not one row of finite numbers.
    """
    if samples_N.ndim != 1 or not np.isfinite(samples_N).all():
        raise MediaError(f"sound of shape {samples_N.shape}", expected="one row of finite samples")
    steps_N = (samples_N.astype(np.float64).clip(-1.0, 1.0) * STEPS).round().astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(steps_N.tobytes())
    return buffer.getvalue()


def write_wav(path: Path, samples_N: np.ndarray[Any, Any], sample_rate_hz: int) -> None:
    """Write a WAV file that appears whole or not at all.

    Raises:
        MediaError: samples that are not one row of finite numbers.
    """
    data = wav_bytes(samples_N, sample_rate_hz)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)

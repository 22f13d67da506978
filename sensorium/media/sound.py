"""A sound as the beginning of its first channel: what a generator of sound learns from.

A sound is a WAV file of whole numbers, read by the standard library, any other file that PyAV (extra `video`) reads (`media/opened.py`), a video's
among them, or what has samples as `array` and their `sample_rate_hz`.

Shape legend: N samples, M samples of a chunk, K samples that one is made of, C channels.
"""

from __future__ import annotations

import math
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium.core.errors import MediaError
from sensorium.media.opened import Opened, Stored

SUFFIXES = (".wav", ".w64", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aiff", ".aif")
"""By which a file is known as sound before it is opened."""
RATES_HZ = (1_000, 768_000)
WIDTH, ROLLOFF = 6, 0.99
"""Zero crossings on each side of the low-pass filter of `resampled`, and where it cuts off, of half the lower rate: torchaudio's defaults."""
CHUNK = 16384
"""Samples that are made at once, which bounds the memory that it takes."""
WIDEST = 4
"""Bytes of a whole number that is read here."""


@dataclass(frozen=True, slots=True)
class Sound:
    """One channel, -1..1."""

    samples_N: NDArray[np.float32]
    rate_hz: int


def load_sound(source: Any, seconds: float, *, root: Path | None = None) -> Sound:
    """The beginning of a sound, at its own rate.

    Args:
        source: a path (relative ones start from `root`), the bytes of a file, or what has `array` and `sample_rate_hz`.
        seconds: at most so long; no more is decoded.

    Raises:
        MediaError: it is no sound, is empty, or holds what is not finite.
    """
    where, rate = "audio", getattr(source, "sample_rate_hz", None)
    if rate is None:
        stored = Stored(source, root, "audio", "samples with their sample_rate_hz")
        where = stored.where
        sound = _wav(stored, seconds) or _decoded(stored, seconds)
    else:
        array = np.asarray(source.array, np.float32)
        if array.ndim != 1:
            raise MediaError(f"sound of shape {array.shape}", expected="one row of samples")
        sound = Sound(array, int(rate))
    low, high = RATES_HZ
    if not low <= sound.rate_hz <= high:
        raise MediaError(f"{sound.rate_hz:,} samples a second", expected=f"{low:,} to {high:,}", where=where)
    samples_N = sound.samples_N[: math.ceil(seconds * sound.rate_hz)]
    if not len(samples_N) or not np.isfinite(samples_N).all():
        raise MediaError("sound without samples, or with some that are not finite", where=where, fix="the file may be cut off")
    return Sound(samples_N, sound.rate_hz)


def resampled(sound: Sound, rate_hz: int, span: slice = slice(None)) -> NDArray[np.float32]:
    """The samples (N,) at another rate: what lies above half the lower rate is filtered out, by a sine cardinal under a Hann window.

    Args:
        span: of all samples at that rate these alone, which costs less.
    """
    if sound.rate_hz == rate_hz:
        return sound.samples_N[span]
    ratio = sound.rate_hz / rate_hz
    first, last, _ = span.indices(count_at(sound, rate_hz))
    cut = ROLLOFF * min(1.0, 1 / ratio)
    reach = math.ceil(WIDTH / cut)
    # Those that are read alone, and silence where there are none: clips of a long sound want no copies of it.
    begin, end = math.floor(first * ratio) - reach, math.floor(max(last - 1, 0) * ratio) + reach + 2
    there_N = sound.samples_N[max(begin, 0) : max(end, 0)]
    padded_N = np.pad(there_N, (max(-begin, 0), max(end - max(begin, 0) - len(there_N), 0)))
    made_N = np.empty(max(last - first, 0), np.float32)
    for start in range(0, len(made_N), CHUNK):
        times_M = (first + np.arange(start, min(start + CHUNK, len(made_N)))) * ratio
        places_MK = np.floor(times_M).astype(np.int64)[:, None] + np.arange(-reach, reach + 2)
        crossings_MK = ((places_MK - times_M[:, None]) * cut).clip(-WIDTH, WIDTH)
        weights_MK = cut * np.sinc(crossings_MK) * np.cos(crossings_MK * (math.pi / 2 / WIDTH)) ** 2
        made_N[start : start + CHUNK] = (padded_N[places_MK - begin] * weights_MK).sum(axis=1)
    return made_N


def count_at(sound: Sound, rate_hz: int) -> int:
    """How many samples a sound has at another rate."""
    return math.ceil(len(sound.samples_N) / (sound.rate_hz / rate_hz))


def _wav(stored: Stored, seconds: float) -> Sound | None:
    """Of a WAV file of whole numbers; None of any other."""
    with stored.stream() as stream:
        try:
            with wave.open(stream, "rb") as file:
                rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
                content = file.readframes(math.ceil(seconds * min(rate, RATES_HZ[1])))
        # `wave` looks for the next chunk where a damaged length says that it is.
        except (wave.Error, EOFError, RuntimeError):
            return None
    return Sound(_numbers(content, width, channels), rate) if width <= WIDEST else None


def _numbers(content: bytes, width: int, channels: int) -> NDArray[np.float32]:
    """The first channel of whole numbers of so many bytes, the lowest first; those of one byte have no sign."""
    whole = len(content) // (width * channels)
    bytes_NCW = np.frombuffer(content, np.uint8, whole * channels * width).reshape(whole, channels, width)
    first_NW = bytes_NCW[:, 0]
    if width == 1:
        return ((first_NW[:, 0].astype(np.float32) - 128) / 128).astype(np.float32)
    # As the upper bytes of 32 bits, whatever their number.
    wide_N4 = np.zeros((whole, 4), np.uint8)
    wide_N4[:, 4 - width :] = first_NW
    # A power of two divides what is rounded as exactly as what is not; of a long sound every copy counts.
    samples_N = wide_N4.view("<i4")[:, 0].astype(np.float32)
    samples_N /= 2**31
    return samples_N


def _decoded(stored: Stored, seconds: float) -> Sound:
    """What PyAV makes of a file."""
    with Opened(stored, "audio") as (container, stream):
        import av

        rate = int(stream.rate)
        to_floats = av.AudioResampler(format="fltp", rate=rate)
        parts: list[NDArray[np.float32]] = []
        left = math.ceil(seconds * min(rate, RATES_HZ[1]))
        for frame in container.decode(stream):
            for one in to_floats.resample(frame):
                # A copy: the frame's memory is FFmpeg's.
                parts.append(one.to_ndarray()[0].astype(np.float32))
                left -= len(parts[-1])
            if left <= 0:
                break
        return Sound(np.concatenate(parts) if parts else np.zeros(0, np.float32), rate)

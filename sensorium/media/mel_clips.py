"""Clips of a sound as pictures of their mel bands.

Source: github.com/facebookresearch/ImageBind, imagebind/data.py, which has them of torchaudio's `compliance.kaldi.fbank`: power of Hann windows
of 25 ms every 10 ms, each without its mean and with its heights raised, in bands of Kaldi's mels from 20 Hz to half the rate.

Shape legend: S clips, N samples, F bands, T rows of a clip.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium.core.clips import MelClips
from sensorium.core.errors import MediaError
from sensorium.media.sound import count_at, load_sound, resampled

LONGEST_S = 600
"""Ten minutes: all of a sound is read, for its clips lie anywhere in it."""
WINDOW_MS, HOP_MS = 25, 10
LOWEST_HZ, EMPHASIS = 20.0, 0.97
FLOOR = float(np.finfo(np.float32).eps)


def mel_clips(source: Any, config: MelClips, *, root: Path | None) -> NDArray[np.float32]:
    """(S, F, T), of about unit deviation.

    Args:
        source: as of `load_sound`.

    Raises:
        MediaError: it is no sound, or too long.
    """
    # The longest sound and a second more tell it from those that are cut off.
    sound = load_sound(source, LONGEST_S + 1, root=root)
    if len(sound.samples_N) > LONGEST_S * sound.rate_hz:
        raise MediaError("a sound that is too long to be read whole", expected=f"at most {LONGEST_S} seconds",
                         where=str(source) if isinstance(source, str | Path) else "audio", fix="cut it into parts")  # fmt: skip
    rate_hz = config.rate_hz
    starts = [int(start * rate_hz) for start in config.starts(count_at(sound, rate_hz) / rate_hz)]
    return np.stack([_mel(resampled(sound, rate_hz, slice(start, start + config.seconds * rate_hz)), config) for start in starts])


def _mel(samples_N: NDArray[np.float32], config: MelClips) -> NDArray[np.float32]:
    """(F, T) of one clip; one that is shorter than a window is filled up with silence."""
    from transformers.audio_utils import spectrogram

    window = config.rate_hz * WINDOW_MS // 1000
    points = 2 ** (window - 1).bit_length()
    padded_N = np.pad(samples_N, (0, max(0, window - len(samples_N))))
    bands_FT = spectrogram(
        padded_N, np.hanning(window), window, config.rate_hz * HOP_MS // 1000, points, power=2.0, center=False, preemphasis=EMPHASIS,
        mel_filters=_filters(points, config.bands, config.rate_hz), mel_floor=FLOOR, log_mel="log", remove_dc_offset=True,
    )[:, : config.rows]  # fmt: skip
    whole_FT = np.pad(bands_FT, ((0, 0), (0, config.rows - bands_FT.shape[1])))
    return ((whole_FT - config.mean) / config.deviation).astype(np.float32)


@lru_cache(maxsize=4)
def _filters(points: int, bands: int, rate_hz: int) -> NDArray[np.float64]:
    """Triangles over the logarithm that Kaldi takes of frequencies."""
    from transformers.audio_utils import mel_filter_bank

    with warnings.catch_warnings():
        # Bands of few Hz lie between two frequencies, and are empty; so are Kaldi's.
        warnings.simplefilter("ignore", UserWarning)
        return mel_filter_bank(points // 2 + 1, bands, LOWEST_HZ, rate_hz / 2, rate_hz, mel_scale="kaldi", triangularize_in_mel_space=True)

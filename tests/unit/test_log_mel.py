"""AudioLDM's spectrogram beside transformers' own short-time spectra, and mel bands written down a second time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from sensorium.nn.log_mel import MelShape, _filters, log_mel

PUBLISHED = MelShape(rate_hz=16000, bands=64, hop=160, window=1024)
TINY = MelShape(rate_hz=4000, bands=16, hop=4, window=64)


@pytest.mark.parametrize("shape", [PUBLISHED, TINY])
def test_it_is_the_logarithm_of_mirrored_spectra(shape: MelShape) -> None:
    samples_BN = np.random.default_rng(0).normal(0, 0.1, (2, 64 * shape.hop)).astype(np.float32)
    ours_BTM = log_mel(torch.from_numpy(samples_BN), shape)
    assert ours_BTM.shape == (2, 64, shape.bands)
    filters = mel_filter_bank(shape.window // 2 + 1, shape.bands, 0.0, shape.rate_hz / 2, shape.rate_hz, norm="slaney", mel_scale="slaney")
    beside = (shape.window - shape.hop) // 2
    for ours_TM, samples_N in zip(ours_BTM, samples_BN, strict=True):
        theirs_MT = spectrogram(
            np.pad(samples_N, beside, mode="reflect"), window_function(shape.window, "hann", periodic=True), shape.window, shape.hop,
            power=1.0, center=False, mel_filters=filters, mel_floor=1e-5, log_mel="log",
        )  # fmt: skip
        np.testing.assert_allclose(ours_TM.numpy(), theirs_MT.T, atol=1e-4)


def slaney_hz(mels: np.ndarray) -> np.ndarray:
    """A mel is 200/3 Hz up to 1,000 Hz; from there each is 6.4 to the power of 1/27 times the one before."""
    return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))


def test_bands_are_triangles_of_one_area() -> None:
    """librosa's (`filters.mel`): corners at even distances in Slaney's mels, each band two over its width high."""
    highest = 15 + 27 * np.log(8000 / 1000) / np.log(6.4)
    corners_K = slaney_hz(np.linspace(0, highest, 66))
    hz_F = np.linspace(0, 8000, 513)
    low_M1, middle_M1, high_M1 = (corners_K[i : i + 64, None] for i in range(3))
    triangles_MF = np.minimum((hz_F - low_M1) / (middle_M1 - low_M1), (high_M1 - hz_F) / (high_M1 - middle_M1)).clip(min=0)
    np.testing.assert_allclose(_filters(PUBLISHED).numpy(), triangles_MF * 2 / (high_M1 - low_M1), atol=1e-6)


def test_silence_is_the_least_that_there_is() -> None:
    assert torch.equal(log_mel(torch.zeros(1, 1600), PUBLISHED), torch.full((1, 10, 64), 1e-5).log())

"""Sound as the spectrogram that a HiFi-GAN vocoder is told: AudioLDM's VAE and vocoder know no other.

Source: AudioLDM's and NExT-GPT's spectrogram (nextgpt/dataset/audio_processor.py). Magnitudes, not their squares, of windows that lie one hop
apart, the sound mirrored at both ends so that there are as many as hops; mel bands as librosa's, of equal area each; the natural logarithm of
what is no less than 0.00001.

Shape legend: B items, N samples, T rows of the spectrogram, F frequencies, M mel bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

SILENCE = 1e-5


@dataclass(frozen=True, slots=True)
class MelShape:
    """How a spectrogram is laid out."""

    rate_hz: int
    bands: int
    """From nothing to half the rate."""
    hop: int
    """Samples from one row to the next."""
    window: int
    """Samples that a row is made of."""


def log_mel(samples_BN: Tensor, shape: MelShape) -> Tensor:
    """(B, T, M), a row for each hop."""
    beside = (shape.window - shape.hop) // 2
    padded_BN = F.pad(samples_BN[:, None].float(), (beside, beside), mode="reflect")[:, 0]
    hann_N = torch.hann_window(shape.window, device=samples_BN.device)
    spectrum_BFT = torch.stft(padded_BN, shape.window, hop_length=shape.hop, window=hann_N, center=False, return_complex=True).abs()
    bands_BMT = _filters(shape).to(samples_BN.device) @ spectrum_BFT
    return bands_BMT.clamp(min=SILENCE).log().transpose(1, 2)


@lru_cache(maxsize=8)
def _filters(shape: MelShape) -> Tensor:
    """(M, F)"""
    from transformers.audio_utils import mel_filter_bank

    filters_FM = mel_filter_bank(shape.window // 2 + 1, shape.bands, 0.0, shape.rate_hz / 2, shape.rate_hz, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(filters_FM).float().T.contiguous()

"""Videos and sounds that answers hold -> what a generator learns from.

Shape legend: F frames, H/W pixels, N samples.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sensorium.core.batch import Wanted
from sensorium.media.image import load_image
from sensorium.media.limits import ImageLimits
from sensorium.media.resolution import stretch
from sensorium.media.sound import load_sound, resampled
from sensorium.media.video import paced_frames

LOUDEST = 0.5


def video_pixels(wanted: Wanted, size: tuple[int, int], frames: int, fps: float, limits: ImageLimits) -> Tensor:
    """(F, 3, H, W) uint8: the first frames at a pace, stretched; those that a shorter video lacks are black.

    Args:
        size: height and width in pixels.

    Raises:
        MediaError: it cannot be read.
    """
    height, width = size
    pixels_FHWC = np.zeros((frames, height, width, 3), np.uint8)
    for i, frame in enumerate(paced_frames(wanted.medium, frames, fps, root=wanted.root, limits=limits)):
        pixels_FHWC[i] = np.asarray(stretch(load_image(frame, root=wanted.root, limits=limits), height, width, "lanczos"))
    return torch.from_numpy(pixels_FHWC).permute(0, 3, 1, 2).contiguous()


def sound_samples(wanted: Wanted, seconds: float, rate_hz: int) -> Tensor:
    """(N,) the beginning of a sound at a rate, its mean taken away and its loudest sample a half, with silence behind a shorter one
    (AudioLDM's; NExT-GPT's nextgpt/dataset/audio_processor.py).

    Raises:
        MediaError: it cannot be read.
    """
    samples_N = resampled(load_sound(wanted.medium, seconds, root=wanted.root), rate_hz)[: round(seconds * rate_hz)]
    samples_N = samples_N - samples_N.mean()
    heard_N = LOUDEST * samples_N / (np.abs(samples_N).max() + 1e-8)
    made_N = np.zeros(round(seconds * rate_hz), np.float32)
    made_N[: len(heard_N)] = heard_N
    return torch.from_numpy(made_N)

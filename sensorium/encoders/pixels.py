"""uint8 pixels -> what a tower expects. Every encoder normalises inside its forward, so
that pixels travel as bytes and two encoders can share one picture.

Shape legend: N pictures, C channels, H/W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sensorium.core.batch import Preprocess


class Normalise(nn.Module):
    """(pixels / 255 - mean) / std."""

    mean_1C11: Tensor
    std_1C11: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        # Not persistent: the config holds these numbers, checkpoints should not.
        self.register_buffer("mean_1C11", _channels(preprocess.mean), persistent=False)
        self.register_buffer("std_1C11", _channels(preprocess.std), persistent=False)

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        scaled = pixels_NCHW.to(self.mean_1C11.dtype) / 255
        return (scaled - self.mean_1C11) / self.std_1C11


def _channels(values: tuple[float, float, float]) -> Tensor:
    # Built on the CPU even under a meta-device context: the values are already known.
    return torch.tensor(values, dtype=torch.float32, device="cpu").view(1, 3, 1, 1)

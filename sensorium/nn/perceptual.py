"""How far two pictures are apart for a frozen encoder.

After arXiv:1603.08155 and arXiv:1801.03924, without the latter's learnt weights: features of each place are brought to
length one, and their squared distance is averaged.

Shape legend: B pictures, C colours, H/W pixels, N places of all pictures, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PerceptualLoss(nn.Module):
    """Holds an encoder, which learns nothing; `size_px` is the side of its pictures."""

    def __init__(self, encoder: nn.Module, size_px: int) -> None:
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        self.size_px = size_px

    def train(self, mode: bool = True) -> PerceptualLoss:
        """Stays as it is: an encoder that drops out would make another target each time."""
        del mode
        return self

    def forward(self, made_BCHW: Tensor, wanted_BCHW: Tensor) -> Tensor:
        """Mean over places; both are values in -1..1, gradients go to the first."""
        with torch.no_grad():
            wanted_ND = self._features(wanted_BCHW)
        return (self._features(made_BCHW) - wanted_ND).square().sum(1).mean()

    def _features(self, values_BCHW: Tensor) -> Tensor:
        if values_BCHW.shape[-2:] != (self.size_px, self.size_px):
            values_BCHW = F.interpolate(values_BCHW, size=(self.size_px, self.size_px), mode="bilinear", align_corners=False)
        # Encoders scale what they are given from 0..255, bytes or not.
        features: Any = self.encoder((values_BCHW + 1) * 127.5)
        return F.normalize(features.values_ND, dim=-1)

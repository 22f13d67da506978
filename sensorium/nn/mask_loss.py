"""Losses of masks: how far a map of logits is from what is inside.

Source: LISA (arXiv:2308.00692; github.com/dvlab-research/LISA, model/LISA.py), whose two losses come from
MaskFormer's. Each mask counts alike, whatever the size of its picture.

Shape legend: N masks of one picture, H/W pixels.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

SMOOTH_PX = 1e-3
"""Pixels that are added above and below in Dice's fraction, so that two empty masks are alike. LISA divides its sums by
1000 and adds 1e-6, which is the same."""


def mask_bce(logits_NHW: Tensor, inside_NHW: Tensor) -> Tensor:
    """Binary cross-entropy of each mask, the mean over its pixels, (N,).

    Args:
        inside_NHW: 1 or true inside, 0 outside.
    """
    logits_NHW = logits_NHW.float()
    losses_NHW = F.binary_cross_entropy_with_logits(logits_NHW, inside_NHW.to(logits_NHW), reduction="none")
    return losses_NHW.flatten(1).mean(dim=1)


def mask_dice(logits_NHW: Tensor, inside_NHW: Tensor) -> Tensor:
    """1 - Dice's coefficient of each mask and the probabilities, (N,): twice what they share over the sum of both.

    Args:
        inside_NHW: 1 or true inside, 0 outside.
    """
    found_NP = logits_NHW.float().sigmoid().flatten(1)
    inside_NP = inside_NHW.to(found_NP).flatten(1)
    shared_N = 2 * (found_NP * inside_NP).sum(dim=1) + SMOOTH_PX
    return 1 - shared_N / (found_NP.sum(dim=1) + inside_NP.sum(dim=1) + SMOOTH_PX)

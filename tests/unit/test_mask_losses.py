"""LISA's two losses of masks beside a second, direct writing of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sensorium.nn.mask_loss import mask_bce, mask_dice


def written_out(logits_HW: Tensor, inside_HW: Tensor) -> tuple[float, float]:
    """Pixel by pixel, with LISA's own constants: sums of thousandths, and a millionth beside them."""
    entropy = shared = found = inside = 0.0
    for logit, truth in zip(logits_HW.flatten().tolist(), inside_HW.flatten().tolist(), strict=True):
        chance = 1 / (1 + math.exp(-logit))
        entropy -= math.log(chance if truth else 1 - chance)
        shared += chance / 1000 * truth
        found += chance / 1000
        inside += truth / 1000
    return entropy / inside_HW.numel(), 1 - (2 * shared + 1e-6) / (found + inside + 1e-6)


def test_both_losses_equal_the_direct_writing() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_NHW = torch.randn(4, 6, 9, generator=generator) * 3
    inside_NHW = torch.rand(4, 6, 9, generator=generator) < 0.4
    inside_NHW[2], inside_NHW[3] = False, True
    logits_NHW[2] -= 12
    expected = torch.tensor([written_out(a, b) for a, b in zip(logits_NHW, inside_NHW, strict=True)])
    torch.testing.assert_close(mask_bce(logits_NHW, inside_NHW), expected[:, 0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(mask_dice(logits_NHW, inside_NHW.float()), expected[:, 1], atol=1e-6, rtol=1e-5)


def test_a_right_mask_costs_nothing_and_a_wrong_one_all() -> None:
    inside_NHW = torch.zeros(3, 5, 5)
    inside_NHW[0, 1:3], inside_NHW[1, 1:3] = 1, 1
    logits_NHW = 80 * (inside_NHW - 0.5)
    logits_NHW[1] *= -1
    assert torch.allclose(mask_dice(logits_NHW, inside_NHW), torch.tensor([0.0, 1.0, 0.0]), atol=1e-4)
    assert torch.allclose(mask_bce(logits_NHW, inside_NHW), torch.tensor([0.0, 40.0, 0.0]), atol=1e-5)


def test_half_precision_is_summed_in_full() -> None:
    """1024 x 1024 probabilities near 1 are more than the largest number of fp16."""
    logits_NHW = torch.full((1, 300, 300), 8.0, dtype=torch.float16, requires_grad=True)
    loss_N = mask_dice(logits_NHW, torch.ones(1, 300, 300, dtype=torch.bool))
    assert 0 < float(loss_N) < 1e-3
    loss_N.sum().backward()
    assert logits_NHW.grad is not None
    assert torch.isfinite(logits_NHW.grad).all()

"""LISA's loss of words and masks: its arithmetic, its states, and that a tiny decoder learns by it.

Shape legend: B rows, T tokens, D width, N masks, P vectors, C their width, H/W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.errors import DataError
from sensorium.core.masks import Mask
from sensorium.generators.sam import SamConfig
from sensorium.training.objectives.base import Losses, means_added
from sensorium.training.objectives.masks import (
    MaskWeights,
    PictureMasks,
    mask_losses,
)

WIDTH = SamConfig.tiny().prompt_width


def truth(height: int, width: int, *boxes: tuple[int, int, int, int]) -> PictureMasks:
    """A grey picture with bright boxes, and the masks of these."""
    pixels = np.full((height, width, 3), 60, dtype=np.uint8)
    masks: list[Mask] = []
    for x0, y0, x1, y1 in boxes:
        inside = np.zeros((height, width), dtype=bool)
        inside[y0:y1, x0:x1] = True
        pixels[inside] = 250
        masks.append(Mask.from_array(inside))
    return PictureMasks(pixels, tuple(masks))


class Echo:
    """Says of each pixel what its prompt's first number says."""

    def look(self, picture_HWC: Any) -> Any:
        return picture_HWC.shape[:2]

    def decode(self, looked: Any, prompts_NPC: Tensor, *, several: bool = False) -> tuple[Tensor, Tensor]:
        return prompts_NPC[:, :1, :1, None], prompts_NPC[:, 0, :1]

    def to_picture(self, logits_NMLL: Tensor, looked: Any) -> Tensor:
        return logits_NMLL.expand(-1, -1, *looked)


def test_the_sum_is_lisas() -> None:
    truths = [truth(6, 8, (1, 1, 4, 5), (0, 0, 8, 6)), truth(3, 3), truth(5, 4, (2, 2, 3, 5))]
    prompts_NPC = torch.tensor([0.3, -2.0, 1.5]).reshape(3, 1, 1)
    masks = mask_losses(Echo(), prompts_NPC, truths)
    bce = dice = 0.0
    logits = iter(prompts_NPC.flatten().tolist())
    for picture in truths:
        for mask in picture.masks:
            inside = torch.from_numpy(mask.array()).double()
            found = torch.full_like(inside, next(logits))
            bce += float(F.binary_cross_entropy_with_logits(found, inside))
            found = found.sigmoid() / 1000
            dice += 1 - float((2 * (found * inside).sum() + 1e-6) / (found.sum() + (inside / 1000).sum() + 1e-6))
    assert (masks.count, masks.parts) == (3, pytest.approx({"bce": bce / 3, "dice": dice / 3}, rel=1e-5))
    words = Losses(torch.tensor(6.0), 4, {"next_token": 1.5})
    both = means_added(words, masks)
    assert float(both.total) / both.count == pytest.approx(1.5 + 2 * bce / 3 + 0.5 * dice / 3, rel=1e-5)
    assert set(both.parts) == {"next_token", "bce", "dice"}
    only = mask_losses(Echo(), prompts_NPC, truths, MaskWeights(bce=0, dice=1))
    assert float(only.total) == pytest.approx(dice, rel=1e-5)


def test_batches_without_masks_cost_their_words_alone() -> None:
    prompts_NPC = torch.zeros(0, 1, 1, requires_grad=True)
    both = means_added(Losses(torch.tensor(6.0), 4, {}), mask_losses(Echo(), prompts_NPC, [truth(3, 3)]))
    both.total.backward()
    assert float(both.total.detach()) == 1.5


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(DataError, match="2 signal tokens for 1 masks"):
        mask_losses(Echo(), torch.zeros(2, 1, 1), [truth(3, 3, (0, 0, 1, 1))])
    turned = PictureMasks(np.zeros((3, 4, 3), dtype=np.uint8), (Mask(4, 3, (12,)),))
    with pytest.raises(DataError, match="3x4 pixels for a picture of 4x3"):
        mask_losses(Echo(), torch.zeros(1, 1, 1), [turned])


def test_a_tiny_decoder_learns_the_masks_of_its_states() -> None:
    """The projector and the decoder learn, the encoder does not; two states of one picture are two masks."""
    torch.manual_seed(0)
    sam = SamConfig.tiny().build()
    with torch.no_grad():
        for parameter in sam.parameters():
            if parameter.ndim > 1:
                # At its first, transformers' encoder says the same of all pixels.
                parameter.normal_(0, 0.2)
    sam.requires_grad_(requires_grad=False)
    sam.model.mask_decoder.requires_grad_(requires_grad=True)
    project = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, WIDTH))
    frozen = {n: p.clone() for n, p in sam.model.vision_encoder.named_parameters()}
    truths = [truth(40, 60, (2, 4, 20, 36), (30, 10, 58, 30)), truth(33, 20, (1, 15, 19, 32))]
    states_ND = torch.randn(3, 16)
    optimiser = torch.optim.Adam([*project.parameters(), *sam.model.mask_decoder.parameters()], 1e-2)
    losses: list[float] = []
    for _ in range(16):
        masks = mask_losses(sam, project(states_ND)[:, None], truths)
        optimiser.zero_grad()
        (masks.total / masks.count).backward()
        optimiser.step()
        losses.append(float(masks.total.detach()) / masks.count)
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(p, frozen[n]) for n, p in sam.model.vision_encoder.named_parameters())
    with torch.no_grad():
        looked = sam.look(truths[0].picture_HWC)
        logits_NMHW = sam.to_picture(sam.decode(looked, project(states_ND[:2])[:, None])[0], looked)
    found = [Mask.from_array(logits.numpy() > 0) for logits in logits_NMHW[:, 0]]
    ious = [[mask.iou(true) for true in truths[0].masks] for mask in found]
    assert min(ious[0][0], ious[1][1]) > 0.5
    assert max(ious[0][1], ious[1][0]) < 0.2

"""What LISA's masks cost: words, and how far each mask that a signal token stands for is from the true one.

The loss is CE + 2 BCE + 0.5 Dice; masks are compared at their pictures' own sizes, and each counts alike.

Source: LISA (arXiv:2308.00692; github.com/dvlab-research/LISA, model/LISA.py). The state that becomes a mask is the one
from which its token `[SEG]` is foretold, that of the position in front: so the authors' code indexes it, both while
learning and while answering.

Shape legend: B rows, T tokens, D width, N masks of a batch, P vectors of a prompt, C their width, M masks of a prompt, L
cells along a side of a decoder's mask, H/W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensorium.core.errors import DataError
from sensorium.core.masks import Mask
from sensorium.nn.mask_loss import mask_bce, mask_dice
from sensorium.training.objectives.base import Losses


class MaskDecoder(Protocol):
    """A promptable decoder of masks, such as `generators.sam.Sam`."""

    def look(self, picture_HWC: NDArray[np.uint8]) -> Any: ...
    def decode(self, looked: Any, prompts_NPC: Tensor, *, several: bool = False) -> tuple[Tensor, Tensor]: ...
    def to_picture(self, logits_NMLL: Tensor, looked: Any) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class PictureMasks:
    """A picture, and the true masks of its signal tokens in reading order."""

    picture_HWC: NDArray[np.uint8]
    masks: tuple[Mask, ...]


@dataclass(frozen=True, slots=True)
class MaskWeights:
    """What the two losses of masks are multiplied by; defaults are LISA's."""

    bce: float = 2.0
    dice: float = 0.5


def foretelling(hidden_BTD: Tensor, input_ids_BT: Tensor, token_id: int) -> Tensor:
    """The states (N, D) of the positions in front of a token, in reading order."""
    return hidden_BTD[:, :-1][input_ids_BT[:, 1:] == token_id]


def mask_losses(
    decoder: MaskDecoder, prompts_NPC: Tensor, truths: Sequence[PictureMasks], weights: MaskWeights = MaskWeights()
) -> Losses:
    """The weighted losses of all masks, summed over them.

    Args:
        prompts_NPC: one for each mask of each picture, in their order.

    Raises:
        DataError: there are more or fewer prompts than masks, or a mask has another size than its picture.
    """
    counts = [len(truth.masks) for truth in truths]
    if sum(counts) != len(prompts_NPC):
        raise DataError(f"{len(prompts_NPC)} signal tokens for {sum(counts)} masks", expected="a mask for each")
    # Of no masks at all, still something with a gradient.
    bce = dice = prompts_NPC.sum() * 0.0
    for truth, own_NPC in zip(truths, prompts_NPC.split(counts), strict=True):
        if not truth.masks:
            continue
        inside_NHW = _inside(truth).to(own_NPC.device)
        looked = decoder.look(truth.picture_HWC)
        logits_NMLL, _ = decoder.decode(looked, own_NPC)
        logits_NHW = decoder.to_picture(logits_NMLL, looked)[:, 0]
        bce = bce + mask_bce(logits_NHW, inside_NHW).sum()
        dice = dice + mask_dice(logits_NHW, inside_NHW).sum()
    count = len(prompts_NPC)
    parts = {"bce": float(bce.detach()) / max(1, count), "dice": float(dice.detach()) / max(1, count)}
    return Losses(weights.bce * bce + weights.dice * dice, count, parts)


def words_and_masks(words: Losses, masks: Losses) -> Losses:
    """The mean of the words and the mean of the masks, added; every batch then weighs alike, as in LISA."""
    total = words.total / max(1, words.count) + masks.total / max(1, masks.count)
    return Losses(total, 1, words.parts | masks.parts)


def _inside(truth: PictureMasks) -> Tensor:
    """(N, H, W) true inside."""
    size = truth.picture_HWC.shape[:2]
    for mask in truth.masks:
        if mask.size != size:
            raise DataError(f"a mask of {mask.width}x{mask.height} pixels for a picture of {size[1]}x{size[0]}",
                            expected="masks of the whole picture at its own size")  # fmt: skip
    return torch.from_numpy(np.stack([mask.array() for mask in truth.masks]))

"""What LISA's masks cost: words, and how far each mask that a signal token stands for is from the true one.

The loss is CE + 2 BCE + 0.5 Dice; masks are compared at their pictures' own sizes, and each counts alike.

Source: LISA (arXiv:2308.00692; github.com/dvlab-research/LISA, model/LISA.py). The state that becomes a mask is the one
from which its token `[SEG]` is foretold, that of the position in front (`reads_before` of the projector `mask_prompt`).

Shape legend: B rows, T tokens, D width, N masks of a batch, P vectors of a prompt, C their width, M masks of a prompt, L
cells along a side of a decoder's mask, H/W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from sensorium.core.batch import Batch, Wanted
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.masks import Mask
from sensorium.data.source import Source
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.mask_loss import mask_bce, mask_dice
from sensorium.processing.masks import picture_pixels
from sensorium.processing.processor import Processor
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig, means_added
from sensorium.training.objectives.next_token import token_losses


class MaskConfig(ObjectiveConfig):
    """Teaches `hands.mask`, whose generator is a promptable decoder of masks; defaults are LISA's. The decoder itself learns
    where `learns` names the part `objective`, and is then saved with the model."""

    kind: Literal["mask"] = "mask"
    bce: float = Field(default=2.0, ge=0.0)
    dice: float = Field(default=0.5, ge=0.0)

    @property
    def weighs_tokens(self) -> bool:
        return True

    def build(self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]) -> Objective:
        """The objective.

        Raises:
            ConfigError: the model makes no masks, or by something else than such a decoder.
        """
        if "mask" not in model.config.hands:
            raise ConfigError("objective 'mask' for a model that makes no masks", where="objective.kind",
                              fix="give the model hands.mask, or choose objective {kind: instruct}")  # fmt: skip
        sam = model.generators["mask"]
        if not isinstance(sam, nn.Module) or not hasattr(sam, "decoder"):
            raise ConfigError(f"objective 'mask' by a generator of type {type(sam).__name__}", where="model.hands.mask.generator",
                              expected="a promptable decoder of masks: sam")  # fmt: skip
        return MaskObjective(self, cast(Any, sam), processor)


class MaskDecoder(Protocol):
    """A promptable decoder of masks, such as `generators.sam.Sam`."""

    def look(self, picture_HWC: NDArray[np.uint8]) -> Any: ...
    def decode(self, looked: Any, prompts_NPC: Tensor, *, several: bool = False) -> tuple[Tensor, Tensor]: ...
    def to_picture(self, logits_NMLL: Tensor, looked: Any) -> Tensor: ...


class TaughtDecoder(MaskDecoder, Protocol):
    """One whose layers behind the picture's encoder can learn."""

    @property
    def decoder(self) -> nn.Module: ...
    def to(self, device: torch.device) -> Any: ...


class MaskObjective:
    """Words and masks, as LISA adds them up. It owns the decoder's layers, not the picture's encoder before them."""

    def __init__(self, config: MaskConfig, sam: TaughtDecoder, processor: Processor) -> None:
        self.weights = MaskWeights(config.bce, config.dice)
        self.sam = sam
        self.limits = processor.limits
        for parameter in cast(nn.Module, sam).parameters():
            parameter.requires_grad_(False)
        self.module = sam.decoder

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        hidden_BTD = model(batch).hidden_BTD
        words = token_losses(model, batch, hidden_BTD)
        wanted = [one for one in batch.wanted if one.kind == "mask"]
        if not wanted:
            return means_added(words, Losses(hidden_BTD.sum() * 0.0, 0, {}))
        places = [(one.row, one.start) for one in wanted]
        prompts_NPC = model.condition("mask", hidden_BTD, batch.input_ids_BT, places)
        # What looks at pictures is no part of the model, and is where the model is already when a stage is first tried on a batch.
        self.sam.to(model.device)
        truths = [PictureMasks(picture_pixels(group[0], self.limits), tuple(one.medium for one in group))
                  for group in _by_picture(wanted)]  # fmt: skip
        return means_added(words, mask_losses(self.sam, prompts_NPC, truths, self.weights))


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


def _inside(truth: PictureMasks) -> Tensor:
    """(N, H, W) true inside."""
    size = truth.picture_HWC.shape[:2]
    for mask in truth.masks:
        if mask.size != size:
            raise DataError(f"a mask of {mask.width}x{mask.height} pixels for a picture of {size[1]}x{size[0]}",
                            expected="masks of the whole picture at its own size")  # fmt: skip
    return torch.from_numpy(np.stack([mask.array() for mask in truth.masks]))


def _by_picture(wanted: Sequence[Wanted]) -> list[list[Wanted]]:
    """Masks of one picture that follow each other, so that it is looked at once."""
    groups: list[list[Wanted]] = []
    for one in wanted:
        last = groups[-1][-1] if groups else None
        same = last is not None and last.row == one.row and last.root == one.root and (
            last.picture is one.picture or (isinstance(one.picture, str | Path) and last.picture == one.picture))  # fmt: skip
        if same:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups

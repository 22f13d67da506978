"""Teaching a generator that cuts boxes out (`generators/cutter.py`): masks of answers, from the boxes around them.

The LLM does not run. Boxes are moved a little, because those that a model writes are not exact; the loss is binary
cross-entropy plus Dice, over the window that the generator sees.

Shape legend: N masks of a picture, S pixels along a window's side, C channels, H/W pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from sensorium.core.batch import Batch, Wanted
from sensorium.core.boxes import Box
from sensorium.core.errors import ConfigError
from sensorium.core.masks import Mask
from sensorium.data.source import Source
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.mask_loss import mask_bce, mask_dice
from sensorium.processing.masks import picture_pixels
from sensorium.processing.processor import Processor
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig


class CutConfig(ObjectiveConfig):
    """Teaches the generator of `hands.mask`, which learns as the part `objective` and is saved with the model."""

    kind: Literal["cut"] = "cut"
    moved: float = Field(default=0.06, ge=0, lt=0.5)
    """Each side of a true box is moved by so much of its width or height, as a standard deviation."""

    @property
    def template(self) -> str | None:
        return "caption"

    @property
    def runs_llm(self) -> bool:
        return False

    @property
    def reads_pixels(self) -> bool:
        return True

    @property
    def from_answers(self) -> tuple[str, ...]:
        return ("mask",)

    def build(self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]) -> Objective:
        """The objective.

        Raises:
            ConfigError: the model makes no masks, or not of boxes by something that learns.
        """
        if "mask" not in model.config.hands:
            raise ConfigError("objective 'cut' for a model that makes no masks", where="objective.kind",
                              fix="give the model hands: {mask: {generator: {kind: cutter}}}")  # fmt: skip
        cutter = model.generators["mask"]
        if not hasattr(cutter, "windows"):
            raise ConfigError(f"objective 'cut' for a generator of type {type(cutter).__name__}", where="model.hands.mask.generator",
                              expected="one that learns to cut boxes out: cutter")  # fmt: skip
        return CutObjective(self, cast(Any, cutter), processor)


class LearningCutter(Protocol):
    """What cuts boxes out and lets gradients through."""

    @property
    def decoder(self) -> nn.Module: ...
    def windows(self, picture_HWC: NDArray[np.uint8], boxes: Sequence[Box]) -> tuple[Tensor, list[Any]]: ...
    def truths(self, mask_HW: NDArray[np.bool_], frame: Any) -> Tensor: ...
    def __call__(self, windows_NCSS: Tensor) -> Tensor: ...


class CutObjective:
    """It owns the generator for its stage."""

    def __init__(self, config: CutConfig, cutter: LearningCutter, processor: Processor) -> None:
        self.config = config
        self.cutter = cutter
        self.limits = processor.limits
        self.module = cutter.decoder

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        wanted = [one for one in batch.wanted if one.kind == "mask" and one.medium.box is not None]
        # Of no masks at all, still something with a gradient.
        total = sum((p.sum() * 0.0 for p in self.module.parameters()), torch.zeros(()))
        if not wanted:
            return Losses(total, 1, {})
        shown = [self._shown(one) for one in wanted]
        logits_NSS = self.cutter(torch.cat([windows_1CSS for windows_1CSS, _ in shown]))
        truth_NSS = torch.stack([truth_SS for _, truth_SS in shown]).to(logits_NSS.device)
        bce, dice = mask_bce(logits_NSS, truth_NSS).sum(), mask_dice(logits_NSS, truth_NSS).sum()
        parts = {"bce": float(bce.detach()) / len(wanted), "dice": float(dice.detach()) / len(wanted)}
        return Losses(total + bce + dice, len(wanted), parts)

    def _shown(self, wanted: Wanted) -> tuple[Tensor, Tensor]:
        """What the generator sees of a mask's box, (1, C, S, S), and what is true there, (S, S)."""
        mask: Mask = wanted.medium
        windows_1CSS, frames = self.cutter.windows(picture_pixels(wanted, self.limits), [self._moved(cast(Box, mask.box))])
        return windows_1CSS, self.cutter.truths(mask.array(), frames[0])

    def _moved(self, box: Box) -> Box:
        width, height = box.x1 - box.x0, box.y1 - box.y0
        a, b, c, d = (torch.randn(4) * self.config.moved).clamp(-0.3, 0.3).tolist()
        return Box(box.x0 + a * width, box.y0 + b * height, box.x1 + c * width, box.y1 + d * height)

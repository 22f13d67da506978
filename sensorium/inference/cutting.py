"""A mask for each box of an answer, where the model has something that cuts boxes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sensorium.core.boxes import Box
from sensorium.core.hands import Cuts, Making
from sensorium.core.masks import Mask
from sensorium.core.sample import Part
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.masks import mask_part


def cuts_boxes(model: MultimodalModel) -> bool:
    """Whether boxes of answers get masks."""
    hand = model.config.hands.get("mask")
    return hand is not None and not hand.signals


def box_masks(model: MultimodalModel, said: Part, picture_HWC: NDArray[np.uint8], making: Making) -> list[Part]:
    """The masks of a part with boxes, in their order, called as they are.

    Raises:
        ConfigError, WeightsError: what cuts cannot be had.
        CancelledError: somebody asked to stop.
    """
    value = cast(dict[str, Any], said.value)
    boxes: Sequence[Box] = [Box(*numbers) for numbers in value["places"]]
    cutter = cast(Cuts, model.generators.on("mask", model.device))
    made = cutter.cut(picture_HWC, boxes, making)
    return [mask_part(Mask.from_array(one.array), phrase=value.get("phrase"), picture=value["picture"]) for one in made]

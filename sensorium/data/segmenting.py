"""Questions for a mask by the name of a thing, worded as in referring and semantic segmentation.

Source of the forms: LISA (arXiv:2308.00692; github.com/dvlab-research/LISA, utils/utils.py), which asks for a class and answers that
"it is" with a mask behind it.

Shape legend: H/W pixels of the picture.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from sensorium.core.masks import Mask

QUESTIONS = (
    "Can you segment the {name} in this image?",
    "Please segment the {name} in this image.",
    "What is {name} in this image? Please respond with segmentation mask.",
    "What is {name} in this image? Please output segmentation mask.",
)
# What stands in front of the mask; a full stop ends all of them.
ANSWERS = ("It is ", "Sure, ", "Sure, it is ", "Sure, the segmentation result is ", "")


def segment_sample(
    identity: str, picture: PILImage.Image, things: Sequence[tuple[str, NDArray[np.bool_]]], rng: random.Random, meta: dict[str, Any]
) -> dict[str, Any]:
    """A row that asks for all things of one name and answers with their mask; of a picture without things, that it is empty.

    Args:
        things: names, and masks (H, W) of what is seen of each.
    """
    asked: dict[str, Any] = {"type": "image", "image": picture}
    if not things:
        said: list[dict[str, Any]] = [{"type": "text", "text": "Nothing."}]
        text = "What is in this image?"
    else:
        name = rng.choice([name for name, _ in things])
        whole_HW = np.logical_or.reduce([mask_HW for other, mask_HW in things if other == name])
        text, front = rng.choice(QUESTIONS).format(name=name), rng.choice(ANSWERS)
        mask = {"type": "mask", "mask": Mask.from_array(whole_HW).to_json()}
        said = [*([{"type": "text", "text": front}] if front else []), mask, {"type": "text", "text": "."}]
    return {"id": identity, "meta": meta, "messages": [
        {"role": "user", "content": [asked, {"type": "text", "text": text}]}, {"role": "assistant", "content": said}]}  # fmt: skip

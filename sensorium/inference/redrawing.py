"""Pictures through what a model draws with and back: the best that it could draw.

Shape legend: C colours beside H/W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from sensorium.core.responder import Redrawn
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.wanted_pictures import square_pixels


def redrawn(model: MultimodalModel, pictures: Sequence[Any]) -> Redrawn | None:
    """Each picture at the generator's own size, and its codes where it has any; None: the model does not draw, or by nothing that could."""
    generator: Any = model.generators.on("image", model.device) if "image" in model.config.hands else None
    if not hasattr(generator, "redraw"):
        return None
    codes = int(getattr(generator, "codes", 0))
    made: list[Image.Image] = []
    ids: list[list[int]] = []
    for picture in pictures:
        pixels_1CHW = square_pixels(picture, generator.side_px)[None].to(model.device)
        made.append(Image.fromarray(generator.redraw(pixels_1CHW)[0].permute(1, 2, 0).cpu().numpy().copy()))
        if codes:
            ids.append(generator.encode(pixels_1CHW)[0].tolist())
    return Redrawn(made, ids, codes)

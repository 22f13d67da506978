"""Pictures through what a model draws with and back: the best that it could draw.

Shape legend: C colours beside H/W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.wanted_pictures import square_pixels


def redrawn(model: MultimodalModel, pictures: Sequence[Any]) -> list[Image.Image] | None:
    """Each picture at the generator's own size; None: the model does not draw, or by nothing that could."""
    generator: Any = model.generators.on("image", model.device) if "image" in model.config.hands else None
    if not hasattr(generator, "redraw"):
        return None
    side = generator.side_px
    made = [generator.redraw(square_pixels(picture, side)[None].to(model.device))[0] for picture in pictures]
    return [Image.fromarray(pixels_CHW.permute(1, 2, 0).cpu().numpy().copy()) for pixels_CHW in made]

"""SigLIP's towers of the optimal shape (SO400M/14) at 384 pixels (arXiv:2303.15343).

Source: the sizes of the released model in transformers' config.
"""

from __future__ import annotations

from sensorium.encoders.siglip import SiglipConfig
from sensorium.recipes.dual_parts import text_tower
from sensorium.recipes.siglip import NO_MARKS, siglip
from sensorium.training.config import Recipe

WORDS = "google/siglip-so400m-patch14-384"


def siglip_so400m() -> Recipe:
    """SigLIP with larger towers, trained alike."""
    base = siglip()
    image = base.model.lanes["image"].model_copy(update={"encoder": SiglipConfig(feature="pooled")})
    text = text_tower("siglip_text_model", WORDS, hidden_size=1152, intermediate_size=4304,
                      num_hidden_layers=27, num_attention_heads=16, **NO_MARKS)  # fmt: skip
    return base.model_copy(
        update={
            "name": "siglip-so400m",
            "description": "I,T→score: SO400M/14 at 384 pixels, text tower of 27 layers, sigmoid contrast",
            "model": base.model.model_copy(update={"lanes": {"image": image}, "backbone": text}),
        }
    )

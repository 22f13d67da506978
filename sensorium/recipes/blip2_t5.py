"""BLIP-2 (Li et al., arXiv:2301.12597) with FlanT5-XL: the OPT recipe before an encoder-decoder.

Sources: the paper, section 3; github.com/salesforce/LAVIS, models/blip2_models/blip2_t5.py.
"""

from __future__ import annotations

from sensorium.recipes.blip2_opt import blip2_opt
from sensorium.recipes.blip2_represent import DIFFERS
from sensorium.recipes.published_parts import flan_t5_xl
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.next_token import CaptionConfig


def blip2_t5() -> Recipe:
    """Stage 2: the encoder reads the Q-Former's tokens and the front of a caption, the decoder writes
    the rest."""
    base = blip2_opt()
    represent, stage = base.stages
    objective = CaptionConfig(layout="seq2seq", prefix=True)
    return base.model_copy(
        update={
            "name": "blip2-t5",
            "description": "I+T→T: EVA-CLIP-g/224, Q-Former of 32 queries, FlanT5-XL",
            "published": Published(
                paper="2301.12597",
                oracle="Blip2ForConditionalGeneration",
                differs=(
                    *DIFFERS,
                    "unknown: where captions are cut in two; here at any token, all as likely",
                    "pictures are squeezed to a square, not cropped at random",
                    "gradients are clipped at a norm of 1",
                ),
            ),
            "model": base.model.model_copy(
                update={"backbone": flan_t5_xl(), "template": "seq2seq"}
            ),
            "stages": (represent, stage.model_copy(update={"objective": objective, "batch_size": 1520}),),
        }
    )


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(blip2_t5())

"""InstructBLIP (Dai et al., arXiv:2305.06500) with FlanT5-XL: the Vicuna recipe before an
encoder-decoder.

Source: github.com/salesforce/LAVIS, models/blip2_models/blip2_t5_instruct.py, for the graph.
"""

from __future__ import annotations

from sensorium.recipes.instructblip import FROM_MEMORY, instructblip
from sensorium.recipes.published_parts import flan_t5_xl
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe


def instructblip_t5() -> Recipe:
    """The question goes to the Q-Former and to the encoder, the answer through the decoder."""
    base = instructblip()
    (stage,) = base.stages
    return base.model_copy(
        update={
            "name": "instructblip-t5",
            "description": "I+T→T: EVA-CLIP-g/224, Q-Former that reads the question, FlanT5-XL",
            "published": Published(
                paper="2305.06500",
                oracle="InstructBlipForConditionalGeneration",
                differs=FROM_MEMORY,
            ),
            "model": base.model.model_copy(
                update={"backbone": flan_t5_xl(), "template": "seq2seq"}
            ),
            "stages": (stage.model_copy(update={"batch_size": 192}),),
        }
    )


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(instructblip_t5())

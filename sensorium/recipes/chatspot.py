"""ChatSpot (Zhao et al., arXiv:2307.09474): points and boxes of the user's in the question, as text.

Neither code nor weights were published. The graph is Shikra's (arXiv:2306.15195), which does the
same; what is known is the data, MGVLID, and what goes in and out.
"""

from __future__ import annotations

from sensorium.recipes.llava_stages import stage
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shikra import BOTH, shikra
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.next_token import InstructConfig


def chatspot() -> Recipe:
    """Instructions that point at regions; projector and LLM learn."""
    base = shikra()
    assert base.published is not None
    data = mixed({"mgvlid": None}, "samples", root="data/chatspot", suffix=".jsonl")
    return base.model_copy(
        update={
            "name": "chatspot",
            "description": "I+point/box+T→T: Shikra's graph, regions of the user's as text",
            "published": Published(
                paper="2307.09474",
                oracle=base.published.oracle,
                missing=base.published.missing,
                differs=(
                    "unknown: encoder, resolution, map and LLM; they are Shikra's here",
                    "unknown: what learns, rates, batch and epochs; they are Shikra's first stage's",
                    "unknown: stages in front of the one on MGVLID; there is none here",
                    "unknown: the prompt and how coordinates are written",
                ),
            ),
            "stages": (stage("instruct", InstructConfig(), data, BOTH, batch_size=64, epochs=2),),
        }
    )


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(chatspot())

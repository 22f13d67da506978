"""LLaVA-1.5-HD (Liu et al., arXiv:2310.03744, the part on higher resolution): CLIP-L/224 on tiles.

The tiles are encoded one by one, put together to one map, and the whole picture goes in front.
Source: the paper's appendix A.1 and its table 7; no script of this variant was published.
"""

from __future__ import annotations

from sensorium.model.learning import Learn
from sensorium.recipes.anyres_parts import HD_GRIDS, anyres
from sensorium.recipes.llava_15 import llava_15
from sensorium.recipes.published_parts import clip_l
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Recipe


def llava_15_hd() -> Recipe:
    """LLaVA-1.5-13B on up to six tiles of 224 pixels; the same data and rates."""
    base = llava_15("13b")
    assert base.published is not None
    changes = {"encoder": clip_l(224), "resolution": anyres(HD_GRIDS)}
    lane = base.model.lanes["image"].model_copy(update=changes)
    captions, talk = base.stages
    newline = Learn(part="newlines.image", lr=2e-5)
    published = {
        "oracle": "LlavaNextForConditionalGeneration",
        "differs": (
            "the first stage sees tiles with row ends, the original's one square picture of 224 pixels",
            "rows are not grouped by length, and have at most 2,048 tokens as LLaVA-1.5's",
        ),
    }
    return base.model_copy(
        update={
            "name": "llava-1.5-hd",
            "description": "I+T→T: CLIP-L/224 on AnyRes tiles, two-layer MLP, Vicuna-13B",
            "published": base.published.model_copy(update=published),
            "model": base.model.model_copy(update={"lanes": {"image": lane}}),
            "stages": (captions, talk.model_copy(update={"learns": (*talk.learns, newline)})),
        }
    )


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(llava_15_hd())

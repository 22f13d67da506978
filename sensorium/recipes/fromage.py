"""FROMAGe (Koh et al., arXiv:2301.13823): a frozen OPT that sees pictures as one token, and writes [RET] where one is to be found.

Source: github.com/kohjingyu/fromage, main.py and fromage/models.py. `sensorium index build` makes what it finds pictures in.
"""

from __future__ import annotations

from sensorium.model.config import ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.recipes.fromage_parts import DIFFERS, PICTURE, clip_lane, finds, pairs_stage
from sensorium.recipes.published_parts import opt_6_7b
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig
from sensorium.training.objectives.retrieve import RetrieveConfig

RET = ("[RET]",)


def fromage() -> Recipe:
    """Two linear maps, a retrieval head and one embedding learn from captioned pictures."""
    way = finds()
    return Recipe(
        name="fromage",
        description="I+T→T+retrieved I: CLIP-L/224 as one token, OPT-6.7B, [RET] into an index",
        published=Published(paper="2301.13823", second="second writing (test_koh_losses.py)", differs=DIFFERS),
        model=ModelConfig(
            lanes={"image": clip_lane(tokens=1)},
            backbone=opt_6_7b(PICTURE, *RET),
            hands={"image": HandConfig(signals=RET, projector=way.projector, generator=way.generator)},
            template="bare",
        ),
        stages=(
            pairs_stage(RetrieveConfig(), signals=len(RET), lr=3e-4, batch_size=180, max_length=24,
                        schedule=ScheduleConfig(shape="constant", warmup_steps=100)),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(fromage(), steps=5)

"""GILL (Koh et al., arXiv:2305.17216): FROMAGe's frozen OPT with eight tokens that find a picture or draw one.

Source: github.com/kohjingyu/gill, main.py, gill/models.py and TrainDecisionClassifier.ipynb, from which the last stage is.
`sensorium index build` makes what it finds pictures in; without an index, it draws.
"""

from __future__ import annotations

from sensorium.data.config import FileSource
from sensorium.model.choice import ChoiceConfig
from sensorium.model.config import ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import Learn
from sensorium.output_projectors.mapper import MapperConfig
from sensorium.recipes.fromage_parts import DIFFERS, PICTURE, clip_lane, finds, pairs_stage
from sensorium.recipes.published_parts import SD_15, opt_6_7b
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.decide import DecideConfig
from sensorium.training.objectives.retrieve import RetrieveConfig

IMG = tuple(f"[IMG{i}]" for i in range(8))
STAIRS = ScheduleConfig(shape="stairs", warmup_steps=2000, every=10_000, final_ratio=0.1)
# The prompts that people agreed on, each with the way whose picture they liked better.
DECISIONS = FileSource(path="data/parti_prompts/decisions.jsonl", format="samples", take=600)


def gill() -> Recipe:
    """Maps into and out of the LLM and eight embeddings learn from captioned pictures; then what is better drawn, or found."""
    hand = HandConfig(signals=IMG, projector=MapperConfig(), generator=SD_15, other=finds(), choice=ChoiceConfig())
    differs = (
        *DIFFERS,
        "captions alone are not joined in pairs",
        "rows of signal tokens do not decay; the original's decay shrinks all rows",
    )
    return Recipe(
        name="gill",
        description="I+T→T+I: CLIP-L/224 as four tokens, OPT-6.7B, eight tokens to Stable Diffusion 1.5 or an index",
        published=Published(paper="2305.17216", second="second writing (test_koh_losses.py)", differs=differs),
        model=ModelConfig(lanes={"image": clip_lane(tokens=4)}, backbone=opt_6_7b(PICTURE, *IMG), hands={"image": hand}, template="bare"),
        stages=(
            pairs_stage(RetrieveConfig(draw=1.0), signals=len(IMG), hands=("image", "image_other"), lr=1e-3, weight_decay=0.01,
                        batch_size=200, max_length=28, precision="bf16", schedule=STAIRS),
            StageConfig(name="decide", objective=DecideConfig(), data=(DECISIONS,), steps=2000, batch_size=600, betas=(0.9, 0.999),
                        schedule=ScheduleConfig(shape="constant"), learns=(Learn(part="hands.image_choice", lr=1e-3),)),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(gill(), steps=5)

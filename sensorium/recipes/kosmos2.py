"""Kosmos-2 (Peng et al., arXiv:2306.14824): boxes as words of their own in a decoder that was trained
on pictures from the start. `<grounding>` in the text asks for them; rows hold boxes in pixels, as
parts `boxes` with a phrase (core/sample.py). Source: the paper, section 3.3; github.com/microsoft/unilm, kosmos-2/train.sh.
"""

from __future__ import annotations

from sensorium.model.learning import Learn
from sensorium.recipes.kosmos2_parts import kosmos2_model
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig

# Tokens of a batch of 419K, in thousands; tuning goes on with them.
PRETRAIN: dict[str, float | None] = {"text_corpora": 185.0, "grit_and_captions": 215.0, "interleaved": 19.0}
INSTRUCT: dict[str, float | None] = dict.fromkeys(
    (*PRETRAIN, "llava_instruct", "unnatural_instructions", "flan_v2", "grit_templates"))
ROOT, PARTS = "data/kosmos2", ("encoders.image", "projectors.image", "backbone")


def kosmos2() -> Recipe:
    """Everything learns, in both stages."""
    return Recipe(
        name="kosmos-2",
        description="I+box+T→T,box: CLIP-L/224, 64 latent queries, a decoder with location tokens",
        published=Published(
            paper="2306.14824",
            oracle="Kosmos2ForConditionalGeneration",
            differs=(
                "starts from CLIP and a language model at random; the original from Kosmos-1, whose weights are not public",
                "tuning: steps, rate, batch and shares are not published; rate and batch of the first stage, one pass",
                "shares are of rows here, of tokens in the original",
                "the tags around a picture are read, not learned",
                "a batch is 205 packed rows of 2,048 tokens, which makes the 419K tokens of the paper",
            ),
        ),
        model=kosmos2_model(),
        stages=(
            stage("ground", CaptionConfig(layout="kosmos2"), PRETRAIN, steps=60_000),
            stage("instruct", InstructConfig(), INSTRUCT, epochs=1),
        ),
    )  # fmt: skip


def stage(name: str, objective: CaptionConfig | InstructConfig, sets: dict[str, float | None],
          *, steps: int | None = None, epochs: float | None = None) -> StageConfig:  # fmt: skip
    """Linear to zero after 375 steps of warm-up."""
    return StageConfig(
        name=name, objective=objective, data=mixed(sets, "samples", root=ROOT, suffix=".jsonl"),
        learns=tuple(Learn(part=part, lr=2e-4, weight_decay=0.01) for part in PARTS),
        batch_size=205, max_length=2048, pack=True, betas=(0.9, 0.98), epsilon=1e-6, clip_norm=2.0, precision="bf16",
        schedule=ScheduleConfig(shape="linear", warmup_steps=375, final_ratio=0.0), steps=steps, epochs=epochs,
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(kosmos2(), lr=3e-3)

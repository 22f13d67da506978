"""Chameleon-7B (arXiv:2405.09818): text and pictures as one row of tokens, from the first step on.

Also the nearest published stand-in for models like GPT-4o and Gemini: what is unknown of them stands in `stand_ins.py`."""

from __future__ import annotations

from sensorium.data.both_ways import BothWaysSource
from sensorium.model.learning import Learn
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.native_parts import chameleon_model
from sensorium.recipes.shrink import shrink
from sensorium.recipes.stand_ins import STAND_IN, UNKNOWN
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig

# Tokens in thousands of millions; of text with pictures 1.4 thousand million pairs.
FIRST: dict[str, float | None] = {"text": 2900.0, "pairs": 1500.0, "interleaved": 400.0}
SECOND: dict[str, float | None] = {**{name: (share or 0.0) / 4800 / 2 for name, share in FIRST.items()}, "better": 0.5}
TUNING: dict[str, float | None] = dict.fromkeys(("text", "code", "chat", "draw", "interleaved", "safety"))
STEPS, LAST = 1_097_000, 0.01  # 9.2 million million tokens, 2^23 at a time; what is left of the rate then.


def chameleon() -> Recipe:
    return Recipe(
        name="chameleon",
        description="I+T→T+I: VQ of 8,192 codes as words of a Llama of 7B with normed queries; " + STAND_IN,
        published=Published(
            paper="2405.09818", unknown=UNKNOWN,
            oracle="ChameleonForConditionalGeneration",
            missing=("training its picture tokenizer as it was: a weight on faces, licensed pictures, the learnt weights of LPIPS",),
            differs=(
                "the rate falls to 1 % of its peak, by one factor every step (the original: to 0)",
                "shares are of rows here, of tokens in the original",
                "released weights draw nothing: transformers' layout has no decoder and hides the words of codes; here both are there",
                "words of codes are ids 4 to 8195 in the codes' order, quoted from checkpoints made for drawing (arXiv:2407.06135)",
            ),
        ),
        model=chameleon_model(),
        stages=(
            stage("first", FIRST, rate=1e-4, share=0.8),
            stage("second", SECOND, rate=1e-4 * LAST**0.8, share=0.2),
            stage("tune", TUNING, rate=1e-5),
        ),
    )  # fmt: skip


def stage(name: str, sets: dict[str, float | None], *, rate: float, share: float = 0.0) -> StageConfig:
    """Of documents, a share of all steps, over which the rate falls once; without a share, of conversations."""
    batch, dropout, objective = (2048, 0.1, CaptionConfig(layout="document", z_loss=1e-5)) if share else (128, 0.05, InstructConfig(z_loss=1e-5))
    schedule = ScheduleConfig(shape="geometric" if share else "cosine", warmup_steps=4000 if share > 0.5 else 0, final_ratio=LAST**share if share else 0.1)
    data = mixed(sets, "samples", root="data/chameleon", suffix=".jsonl")
    return StageConfig(
        name=name, objective=objective, data=tuple(BothWaysSource(source=one, weight=one.weight) if "pairs" in one.path else one for one in data),
        learns=(Learn(part="backbone", lr=rate, weight_decay=0.1),), steps=round(share * STEPS) or None, epochs=None if share else 1, batch_size=batch,
        max_length=4096, pack=True, betas=(0.9, 0.95), epsilon=1e-5, dropout=dropout, precision="bf16", schedule=schedule,
    )  # fmt: skip


def tiny() -> Recipe:
    return shrink(chameleon())

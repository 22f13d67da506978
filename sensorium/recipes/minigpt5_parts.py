"""MiniGPT-5's tokens and stages (github.com/eric-ai-lab/MiniGPT-5, minigpt4/models/mini_gpt5.py, train_eval.py)."""

from __future__ import annotations

from sensorium.model.learning import Learn
from sensorium.recipes.mixtures import mixed
from sensorium.training.config import ScheduleConfig, StageConfig
from sensorium.training.objectives.base import ObjectiveConfig

IMG = tuple(f"[IMG{i}]" for i in range(8))
ADDED = (*IMG, "<ImageHere>")
"""The last stands for pictures in the original's rows."""
DIFFERS = (
    "all eight vokens are learned words; the original's are the first and the last",
    "rows of the first stage are all asked for as a chat; of the original's, one in a hundred",
    "the second stage is VIST's; the original has another for MMDialog instead",
    "rows of vokens do not decay",
    "a space stands in front of the first voken, and none behind the last, as in MiniGPT-4's rows",
    "pictures are not mirrored at random, and squares to be drawn are cut from them (the original: padded with white)",
    "answers are written greedily unless asked otherwise (the original: nucleus of 0.9, repetition penalty 2)",
    "Vicuna v0's vocabulary is taken to be LLaMA's 32,000",
)


def rows(lr: float) -> tuple[Learn, ...]:
    """The added tokens, which are the last, in both of LLaMA's matrices."""
    names = ("lm.model.embed_tokens", "lm.lm_head")
    return tuple(Learn(part="backbone", module=name, rows=tuple(range(-len(ADDED), 0)), lr=lr) for name in names)


def voken_stage(name: str, objective: ObjectiveConfig, data: str, learns: tuple[Learn, ...]) -> StageConfig:
    """Two epochs, 48 rows at a time, the rate falling to nothing behind 1,000 steps of warm-up."""
    return StageConfig(name=name, objective=objective, data=mixed({data: None}, "samples"), learns=learns, epochs=2, batch_size=48,
                       betas=(0.9, 0.999), precision="bf16", schedule=ScheduleConfig(shape="linear", warmup_steps=1000, final_ratio=0.0))  # fmt: skip

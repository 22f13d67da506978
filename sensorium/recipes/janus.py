"""Janus-1.3B (arXiv:2410.13848) and Janus-Pro-7B (arXiv:2501.17811): SigLIP reads pictures, codes of a VQ model are written.

Also a stand-in for models like GPT-4o and Gemini: what is unknown of them stands in `stand_ins.py`."""

from __future__ import annotations

from sensorium.recipes.janus_stages import ADAPTORS, DIFFERS, janus_stage
from sensorium.recipes.native_parts import JanusSize, janus_model
from sensorium.recipes.shrink import shrink
from sensorium.recipes.stand_ins import STAND_IN, UNKNOWN
from sensorium.training.config import Published, Recipe, StageConfig

ALL = (*ADAPTORS, "backbone")
WHOLE = ("encoders.image", *ALL)


def janus() -> Recipe:
    """Three stages."""
    return _recipe("janus", "2410.13848", "1b", (
        janus_stage("adapt", ADAPTORS, 1e-3, (1, 0, 1), steps=10_000, batch=256, warmup=300),
        janus_stage("pretrain", ALL, 1e-4, (2, 3, 5), steps=180_000, batch=512, warmup=5000),
        janus_stage("tune", WHOLE, 2e-5, (7, 3, 10), steps=24_000, batch=256, warmup=0),
    ))  # fmt: skip


def janus_pro() -> Recipe:
    """Longer first stage, ImageNet in it alone, other shares, a larger LLM."""
    return _recipe("janus-pro", "2501.17811", "7b", (
        janus_stage("adapt", ADAPTORS, 1e-3, (1, 0, 3), steps=20_000, batch=256, warmup=600),
        janus_stage("pretrain", ALL, 1e-4, (2, 3, 5), steps=360_000, batch=512, warmup=5000),
        janus_stage("tune", WHOLE, 4e-5, (5, 1, 4), steps=80_000, batch=128, warmup=0),
    ))  # fmt: skip


def _recipe(name: str, paper: str, size: JanusSize, stages: tuple[StageConfig, ...]) -> Recipe:
    return Recipe(
        name=name,
        description=f"I+T→T+I: SigLIP-L/384 reads, 16,384 codes with tables of their own are written, DeepSeek-LLM-{size.upper()}; {STAND_IN}",
        published=Published(paper=paper, oracle="JanusForConditionalGeneration", differs=DIFFERS, unknown=UNKNOWN),
        model=janus_model(size),
        stages=stages,
    )


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(janus())

"""BLIP-2's first stage, which its relatives share: the Q-Former learns from captions, without an LLM.

Sources: BLIP-2 (arXiv:2301.12597), section 3; github.com/salesforce/LAVIS,
projects/blip2/train/pretrain_stage1.yaml, for the last learning rate.
"""

from __future__ import annotations

from typing import Any

from sensorium.data.config import FileSource
from sensorium.model.learning import Learn
from sensorium.recipes.blip2_parts import lavis_stage
from sensorium.training.config import StageConfig
from sensorium.training.objectives.base import ObjectiveConfig
from sensorium.training.objectives.query_pretrain import QueryPretrainConfig

LR = 1e-4
DIFFERS = (
    "the Q-Former begins at random, not as BERT-base, and has no dropout",
    "captions keep capitals and punctuation",
    "the first stage warms up for the paper's 2,000 steps; the released file has 5,000",
)


def seeing(lr: float = LR) -> tuple[Learn, ...]:
    """Q-Former and the tower's last norm: `ln_vision` is outside of what LAVIS freezes."""
    return (
        Learn(part="projectors.image", lr=lr, weight_decay=0.05),
        Learn(part="encoders.image", module="tower.post_layernorm", lr=lr),
    )


def represent(
    data: tuple[FileSource, ...], objective: ObjectiveConfig | None = None, **changes: Any
) -> StageConfig:
    """Contrast, matching and captions; 250,000 steps of 1680 pairs.

    Args:
        changes: other settings of the stage.
    """
    settings: dict[str, Any] = {"steps": 250_000, "batch_size": 1680, "warmup_steps": 2000}
    return lavis_stage(
        "represent",
        objective or QueryPretrainConfig(),
        data,
        (*seeing(), Learn(part="objective", lr=LR, weight_decay=0.05)),
        **({"max_length": 96, "final_ratio": 0.1, "betas": (0.9, 0.98)} | settings | changes),
    )

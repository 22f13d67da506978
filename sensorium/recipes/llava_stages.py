"""The stages of LLaVA and its relatives, as their scripts train them.

Sources: github.com/haotian-liu/LLaVA, scripts/; github.com/LLaVA-VL/LLaVA-NeXT, scripts/train/.
All: AdamW without decay, cosine to zero after 3 % of warm-up, bf16; LLaVA at most 2048 tokens.
"""

from __future__ import annotations

from typing import Any

from sensorium.data.config import FileSource
from sensorium.model.learning import Learn
from sensorium.training.config import ScheduleConfig, StageConfig
from sensorium.training.objectives.base import ObjectiveConfig
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig

PROJECTOR, BACKBONE = "projectors.image", "backbone"
# LLaVA-NeXT and LLaVA-OneVision: all parts, the encoder at a rate of its own.
EVERYTHING = {PROJECTOR: 1e-5, BACKBONE: 1e-5, "newlines.image": 1e-5, "encoders.image": 2e-6}


def align(path: str, root: str, *, lr: float, batch_size: int, **changes: Any) -> StageConfig:
    """The projector learns to make the language model write captions: one epoch."""
    data = (FileSource(path=path, format="llava", media_root=root),)
    return stage("align", CaptionConfig(layout="caption_line"), data, {PROJECTOR: lr},
                 batch_size=batch_size, epochs=1, **changes)  # fmt: skip


def instruct(path: str, root: str, *, batch_size: int, epochs: float) -> StageConfig:
    """Projector and language model learn to answer."""
    data = (FileSource(path=path, format="llava", media_root=root),)
    return stage("instruct", InstructConfig(), data, {PROJECTOR: 2e-5, BACKBONE: 2e-5},
                 batch_size=batch_size, epochs=epochs)  # fmt: skip


def tune_all(name: str, paths: tuple[str, ...], root: str, **changes: Any) -> StageConfig:
    """Everything learns to answer: one epoch."""
    data = tuple(FileSource(path=path, format="llava", media_root=root) for path in paths)
    return stage(name, InstructConfig(), data, EVERYTHING, epochs=1, **changes)


def stage(
    name: str,
    objective: ObjectiveConfig,
    data: tuple[FileSource, ...],
    rates: dict[str, float],
    **changes: Any,
) -> StageConfig:
    """A stage with the settings that all of LLaVA's scripts share.

    Args:
        rates: part -> learning rate; all others are frozen.
        changes: what else the stage sets.
    """
    settings: dict[str, Any] = {
        "schedule": ScheduleConfig(warmup_ratio=0.03, final_ratio=0.0),
        "betas": (0.9, 0.999),
        "max_length": 2048,
        "precision": "bf16",
    }
    return StageConfig(
        name=name,
        objective=objective,
        data=data,
        learns=tuple(Learn(part=part, lr=lr) for part, lr in rates.items()),
        **(settings | changes),
    )

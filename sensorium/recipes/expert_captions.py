"""The route of expert models: nano says what it sees, and a language model that takes no pictures reads it.

As in VideoChat-Text (arXiv:2305.06355) and its like nothing has to learn; here a small adapter does, so that
the language model gets to know what its experts' words are worth. With `sensorium[ocr]` a reader of text
joins: `experts: [{kind: captioner}, {kind: ocr}]`.
"""

from __future__ import annotations

from sensorium.data.config import PictureBookSource, ScenesSource
from sensorium.data.told import ExpertSource
from sensorium.experts.base import AnyExpert
from sensorium.experts.captioner import CaptionerConfig
from sensorium.model.config import LoraConfig, ModelConfig
from sensorium.model.learning import Learn
from sensorium.recipes.nano_parts import smollm2_135m
from sensorium.training.config import Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import InstructConfig

EXPERTS: tuple[AnyExpert, ...] = (CaptionerConfig(model="nano"),)


def expert_captions() -> Recipe:
    """An adapter of SmolLM2 learns to answer from captions."""
    book, scenes = PictureBookSource(variants=1), ScenesSource(count=1000)
    return Recipe(
        name="expert-captions",
        description="nano's captions read by SmolLM2-135M, which takes no pictures",
        model=ModelConfig(backbone=smollm2_135m(), adapter=LoraConfig(rank=8, alpha=16.0), template="smol"),
        stages=(
            StageConfig(
                name="instruct",
                objective=InstructConfig(),
                data=tuple(ExpertSource(source=source, experts=EXPERTS) for source in (book, scenes)),
                learns=(Learn(part="adapter", lr=5e-4),),
                epochs=1,
                batch_size=8,
                max_length=384,
                schedule=ScheduleConfig(warmup_ratio=0.03),
            ),
        ),
    )

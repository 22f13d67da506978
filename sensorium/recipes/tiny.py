"""tiny: a whole model from scratch that trains in seconds, for tests and for trying things."""

from __future__ import annotations

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.data.config import ScenesSource
from sensorium.encoders.vit import VitConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.learning import Learn
from sensorium.training.config import Recipe, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig


def tiny_model() -> ModelConfig:
    """A ViT of 3 layers and a Llama of 2, at random."""
    return ModelConfig(
        lanes={"image": LaneConfig(encoder=VitConfig.tiny(), projector=MlpConfig.tiny())},
        backbone=CausalLMConfig.tiny(),
        template="chatml",
    )


def tiny() -> Recipe:
    """Two short stages on synthetic scenes."""
    return Recipe(
        name="tiny",
        description="random tiny parts on synthetic scenes: seconds, not quality",
        model=tiny_model(),
        stages=(
            StageConfig(
                name="align",
                objective=CaptionConfig(),
                data=(ScenesSource(task="captions", count=64),),
                learns=(Learn(part="projectors.image", lr=1e-3),),
                steps=6,
                batch_size=4,
                max_length=256,
                checkpoint_every=2,
                precision="fp32",
            ),
            StageConfig(
                name="instruct",
                objective=InstructConfig(),
                data=(ScenesSource(count=64),),
                learns=(
                    Learn(part="projectors.image", lr=1e-3),
                    Learn(part="backbone", lr=1e-3),
                ),
                steps=6,
                batch_size=2,
                max_length=512,
                checkpoint_every=2,
                precision="fp32",
            ),
        ),
    )

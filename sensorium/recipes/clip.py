"""CLIP (Radford et al., arXiv:2103.00020): a picture finds its text among a batch's.

Sources: the paper, section 2 and its tables of hyperparameters; github.com/openai/CLIP, model.py.
"""

from __future__ import annotations

from sensorium.backbones.text_tower import TextTowerConfig
from sensorium.encoders.clip import ClipConfig
from sensorium.fusion.apart import ApartConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import ModelConfig
from sensorium.recipes.dual_parts import contrast, dual, text_tower
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig
from sensorium.training.objectives.contrastive import ContrastiveConfig

DIFFERS = (
    "pictures are cropped in the middle, not at random",
    "gradients are clipped at a norm of 1",
    "the contrast is among one batch on one machine; `accumulate` does not widen it",
)
WORDS = "openai/clip-vit-base-patch32"


def clip() -> Recipe:
    """ViT-B/32 from scratch: 400M pairs of the web, 32 times."""
    encoder = ClipConfig(width=768, layers=12, heads=12, mlp_width=3072, image_size_px=224,
                         patch_size_px=32, feature="pooled")  # fmt: skip
    return Recipe(
        name="clip",
        description="I,T→score: ViT-B/32, causal text tower of 12 layers, softmax contrast",
        published=Published(paper="2103.00020", oracle="CLIPModel", differs=DIFFERS),
        model=_model(encoder, text_tower("clip_text_model", WORDS)),
        stages=(
            contrast("contrast", "data/wit_400m", ContrastiveConfig(), lr=5e-4, decay=0.2,
                     epochs=32, batch_size=32768, max_length=77, betas=(0.9, 0.98), epsilon=1e-6,
                     schedule=ScheduleConfig(warmup_steps=2000, final_ratio=0.0)),
        ),
    )  # fmt: skip


def _model(encoder: ClipConfig, backbone: TextTowerConfig) -> ModelConfig:
    return dual(encoder, LinearConfig(bias=False), FixedResolution(fit="crop"), backbone, ApartConfig())


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(clip())

"""SigLIP (Zhai et al., arXiv:2303.15343): every pair of a batch is a match or none, each by itself.

Sources: the paper, sections 3, 4.6 and 4.7; the towers' sizes from transformers' configs of the released
models.
"""

from __future__ import annotations

import math

from sensorium.encoders.siglip import SiglipConfig
from sensorium.fusion.apart import ApartConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.media.resolution import FixedResolution
from sensorium.recipes.dual_parts import contrast, dual, text_tower
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig
from sensorium.training.objectives.contrastive import ContrastiveConfig

PUBLISHED = Published(
    paper="2303.15343",
    oracle="SiglipModel",
    differs=(
        "AdamW (the original: Adafactor for vision transformers)",
        "the contrast is among one batch on one machine; `accumulate` does not widen it",
        "one size of pictures; the original: 40 billion pairs at 256 pixels, 5 billion at the last size, at a "
        "hundredth of the rate and without decay",
        "rate, decay and warm-up are SigLIP 2's (arXiv:2502.14786, section 2.1); its own paper's text gives none",
    ),
)
# The class's default ids of begin and end are CLIP's, beyond this vocabulary.
NO_MARKS = {"bos_token_id": None, "eos_token_id": None}
WORDS = "google/siglip-base-patch16-224"


def siglip() -> Recipe:
    """ViT-B/16 at 224 pixels from scratch; the picture's pooled feature is its embedding."""
    encoder = SiglipConfig(width=768, layers=12, heads=12, mlp_width=3072, image_size_px=224,
                           patch_size_px=16, feature="pooled")  # fmt: skip
    return Recipe(
        name="siglip",
        description="I,T→score: ViT-B/16, text tower of 12 layers, sigmoid contrast",
        published=PUBLISHED,
        model=dual(encoder, LinearConfig(project=False), FixedResolution(fit="stretch"),
                   text_tower("siglip_text_model", WORDS, **NO_MARKS), ApartConfig(scale=math.log(10), bias=-10.0)),
        stages=(
            contrast("contrast", "data/webli_en", ContrastiveConfig(loss="sigmoid", max_scale=None),
                     lr=1e-3, decay=1e-4, projected=False, steps=40_000_000_000 // 32768,
                     batch_size=32768, max_length=64, betas=(0.9, 0.95),
                     schedule=ScheduleConfig(warmup_steps=20_000, final_ratio=0.0)),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(siglip())

"""BLIP that finds pictures by texts and texts by pictures (Li et al., arXiv:2201.12086), tuned on COCO.

Sources: the paper, section 5; github.com/salesforce/BLIP, configs/retrieval_coco.yaml,
models/blip_retrieval.py and README.md.
"""

from __future__ import annotations

from sensorium.backbones.cross_tower import CrossTowerConfig
from sensorium.data.config import FileSource
from sensorium.recipes.blip_parts import DIFFERS, MARKS, seeing, text, tune
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.matching import MatchingConfig
from sensorium.training.objectives.slow_copy import SlowConfig


def blip_retrieval() -> Recipe:
    """Contrast, and matching of what it confuses; 32 pairs on each of 8 GPUs."""
    data = (FileSource(path="data/coco_karpathy_train.jsonl", media_root="data/coco"),)
    return Recipe(
        name="blip-retrieval",
        description="I,T→score: ViT-B/16 at 384 pixels, BERT that reads alone and over the picture",
        published=Published(
            paper="2201.12086",
            oracle="BlipForImageTextRetrieval",
            differs=(
                *DIFFERS,
                "all texts begin with [ENC] (the original: [CLS] where they are read alone)",
            ),
        ),
        model=seeing(384, CrossTowerConfig(**text(MARKS[1])), "pair"),
        stages=(tune("match", MatchingConfig(slow=SlowConfig(), captions_share=True), data, lr=1e-5,
                     epochs=6, batch_size=256, max_length=35),),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(blip_retrieval())

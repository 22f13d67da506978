"""BLIP's captioner (Li et al., arXiv:2201.12086), tuned on COCO.

Sources: the paper, section 5; github.com/salesforce/BLIP, configs/caption_coco.yaml and README.md.
"""

from __future__ import annotations

from sensorium.backbones.cross_lm import CrossLMConfig
from sensorium.data.config import FileSource
from sensorium.recipes.blip_parts import DIFFERS, MARKS, SMOOTHING, seeing, text, tune
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.next_token import CaptionConfig


def blip_caption() -> Recipe:
    """Captions behind "a picture of"; 32 of them on each of 8 GPUs."""
    data = (FileSource(path="data/coco_karpathy_train.jsonl", media_root="data/coco"),)
    return Recipe(
        name="blip-caption",
        description="I→T: ViT-B/16 at 384 pixels, BERT decoder with cross-attention in every layer",
        published=Published(
            paper="2201.12086",
            oracle="BlipForConditionalGeneration",
            differs=DIFFERS,
        ),
        model=seeing(384, CrossLMConfig(**text(MARKS[0])), "picture_of"),
        stages=(tune("caption", CaptionConfig(layout="picture_of", smoothing=SMOOTHING), data, lr=1e-5,
                     epochs=5, batch_size=256, max_length=40),),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(blip_caption())

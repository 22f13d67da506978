"""BLIP (Li et al., arXiv:2201.12086): one BERT learns to compare, to match and to write, beside a picture.

Sources: the paper, section 4.1; github.com/salesforce/BLIP, configs/pretrain.yaml, pretrain.py and
models/blip_pretrain.py. `blip-caption`, `blip-vqa` and `blip-retrieval` take what it learns by `start=FOLDER`.
"""

from __future__ import annotations

from sensorium.backbones.cross_med import CrossMedConfig
from sensorium.recipes.blip_parts import MARKS, seeing, text, tune
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig
from sensorium.training.objectives.blip_pretrain import BlipPretrainConfig

# 14M pictures.
SETS = ("coco", "visual_genome", "cc3m", "cc12m", "sbu")
EPOCHS = 20


def blip() -> Recipe:
    """Pictures of 224 pixels and captions of up to 30 tokens."""
    return Recipe(
        name="blip",
        description="I,T→score, I→T: ViT-B/16 at 224 pixels, BERT encoder and decoder that share all but self-attention",
        published=Published(
            paper="2201.12086", second="parts of transformers (test_blip_pretrain.py)",
            missing=("captions of web pictures written and filtered by the model itself (CapFilt)",),
            differs=(
                "transformer and BERT begin at random, not as DeiT-B and BERT-base",
                "pictures are squeezed to a square, not cropped at random and changed by RandAugment",
                "texts that are read alone begin with [ENC], not [CLS]; captions keep their punctuation",
                "the rate falls by 0.85 an epoch (paper; the file has 0.9), but at every step, not at once",
                "gradients are clipped at a norm of 1; biases, norms and the temperature do not decay",
                "candidates and hard negatives come from the whole batch, not from one GPU's share of it",
                "the batch of 2880 is the paper's (the repository's command: 8 times 75)",
            ),
        ),
        model=seeing(224, CrossMedConfig(**text(MARKS[1])), "pair"),
        stages=(
            tune(
                "pretrain", BlipPretrainConfig(), mixed(dict.fromkeys(SETS), "webdataset"), lr=3e-4,
                epochs=EPOCHS, batch_size=2880, max_length=30,
                schedule=ScheduleConfig(shape="geometric", warmup_steps=3000, final_ratio=0.85**EPOCHS),
            ),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(blip())

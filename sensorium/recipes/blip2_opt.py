"""BLIP-2 (Li et al., arXiv:2301.12597) with OPT-2.7B: the Q-Former learns to see, then to tell an LLM.

Sources: the paper, section 3; github.com/salesforce/LAVIS, projects/blip2/train/pretrain_stage2.yaml.
Tower and Q-Former of a BLIP-2 that was imported (`sensorium import`) are taken by `start=FOLDER`.
"""

from __future__ import annotations

from sensorium.model.config import ModelConfig
from sensorium.recipes.blip2_parts import BERT, EVA_VIT_G, blip2_lane, lavis_stage
from sensorium.recipes.blip2_represent import DIFFERS, represent, seeing
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.published_parts import opt_2_7b
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.next_token import CaptionConfig

# 129M pictures; those of the web have captions by CapFilt.
SETS = ("coco", "visual_genome", "cc3m", "cc12m", "sbu", "laion_115m")


def blip2_opt() -> Recipe:
    """Then the language model is frozen and reads the Q-Former's tokens as a prefix."""
    data = mixed(dict.fromkeys(SETS), "webdataset")
    return Recipe(
        name="blip2-opt",
        description="I+T→T: EVA-CLIP-g/224, Q-Former of 32 queries, OPT-2.7B",
        published=Published(
            paper="2301.12597",
            oracle="Blip2ForConditionalGeneration",
            differs=(
                *DIFFERS,
                "pictures are squeezed to a square, not cropped at random",
                "gradients are clipped at a norm of 1",
                "the loss does not count OPT's </s> in front of a text",
                "the line break that ends an answer does not stop generation",
                "the last learning rate is the paper's 5e-5; the released file has 1e-5",
            ),
        ),
        model=ModelConfig(lanes={"image": blip2_lane(EVA_VIT_G, reader=BERT)}, backbone=opt_2_7b(), template="question"),
        stages=(
            represent(data),
            lavis_stage(
                "generate", CaptionConfig(layout="caption_behind"), data, seeing(), steps=80_000,
                batch_size=1920, max_length=64, warmup_steps=2000, final_ratio=0.5, betas=(0.9, 0.98),
            ),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(blip2_opt())

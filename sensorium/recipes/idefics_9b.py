"""IDEFICS-9B (Laurençon et al., arXiv:2306.16527), the open Flamingo (arXiv:2204.14198).

CLIP ViT-H, a perceiver resampler, gated cross-attention before every fourth layer of LLaMA-7B.
Source: the table of huggingface.co/HuggingFaceM4/idefics-9b, README.md. Its weights are of step 65,000.
"""

from __future__ import annotations

from sensorium.model.learning import Learn
from sensorium.recipes.idefics_parts import idefics_model
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig

# Shares of the tokens that the model saw.
SHARES = {"obelics": 0.7385, "wikipedia": 0.0615, "laion": 0.1718, "pmd": 0.0282}


def idefics_9b() -> Recipe:
    """Web pages with their pictures; resampler and cross-attention learn, the rest is frozen."""
    lr, decay = 1e-5, 0.1
    return Recipe(
        name="idefics-9b",
        description="I+T→T, interleaved: CLIP-H/224, resampler of 64, cross-attention in LLaMA-7B",
        published=Published(
            paper="2306.16527",
            oracle="IdeficsForVisionText2Text",
            differs=(
                "the rows of the two added words do not decay",
                "no z-loss (the original: of weight 1e-3)",
            ),
        ),
        model=idefics_model(),
        stages=(
            StageConfig(
                name="pretrain",
                objective=CaptionConfig(layout="document"),
                data=mixed(SHARES, "samples", suffix=".jsonl"),
                learns=(
                    Learn(part="projectors.image", lr=lr, weight_decay=decay),
                    Learn(part="fusion", lr=lr, weight_decay=decay),
                    *(Learn(part="backbone", module=m, rows=(-2, -1), lr=lr)
                      for m in ("lm.model.embed_tokens", "lm.lm_head")),
                ),
                steps=200_000,
                batch_size=1280,  # Packed rows: 1.31M tokens.
                max_length=1024,
                pack=True,
                schedule=ScheduleConfig(shape="linear", warmup_steps=2000, final_ratio=0.6),
                betas=(0.9, 0.999),
                precision="bf16",
            ),
        ),
    )


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(idefics_9b())

"""LLaVA-Med v1.5 (Li et al., arXiv:2306.00890): LLaVA-1.5's graph around Mistral, for medicine.

Source: github.com/microsoft/LLaVA-Med, README.md and llava/conversation.py. The stages' settings
are those of version 1, which its README listed (commit 635c532); how v1.5 was trained was not published.
"""

from __future__ import annotations

from sensorium.recipes.llava_15 import llava_15
from sensorium.recipes.llava_stages import align, instruct
from sensorium.recipes.published_parts import mistral_7b_instruct
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe


def llava_med() -> Recipe:
    """500K captioned figures for the projector, then 60K conversations for projector and LLM."""
    base = llava_15()
    assert base.published is not None
    changes = {"backbone": mistral_7b_instruct(), "template": "mistral"}
    return Recipe(
        name="llava-med",
        description="I+T→T: CLIP-L/336, two-layer MLP, Mistral-7B, biomedical figures",
        published=Published(
            paper="2306.00890",
            oracle="LlavaForConditionalGeneration",
            differs=(
                *base.published.differs,
                "the stages' settings are those of version 1; v1.5 did not publish its own",
            ),
        ),
        model=base.model.model_copy(update=changes),
        stages=(
            align("data/llava_med_alignment_500k.json", "data/llava_med_images",
                  lr=2e-3, batch_size=128),
            instruct("data/llava_med_instruct_60k_inline_mention.json", "data/llava_med_images",
                     batch_size=128, epochs=3),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(llava_med())

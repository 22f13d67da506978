"""LLaVA-1.5 (Liu et al., arXiv:2310.03744): CLIP at 336 pixels, a two-layer MLP, Vicuna v1.5.

Source: github.com/haotian-liu/LLaVA, scripts/v1_5/pretrain.sh and finetune.sh.
"""

from __future__ import annotations

from sensorium.input_projectors.mlp import MlpConfig
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.recipes.llava_stages import align, instruct
from sensorium.recipes.published_parts import Size, clip_l, vicuna_15
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe


def llava_15(size: Size = "7b") -> Recipe:
    """558K captions for the projector, then 665K conversations for projector and LLM."""
    return Recipe(
        name="llava-1.5",
        description="I+T→T: CLIP-L/336, two-layer MLP, Vicuna-7B",
        published=Published(
            paper="2310.03744",
            oracle="LlavaForConditionalGeneration",
            differs=(
                "pictures are padded with white (the original: the mean colour, and in the first "
                "stage a centre crop)",
                "rows are not grouped by length",
            ),
        ),
        model=ModelConfig(
            lanes={"image": LaneConfig(encoder=clip_l(336), projector=MlpConfig(depth=2))},
            backbone=vicuna_15(size),
            template="vicuna",
        ),
        stages=(
            align("data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", "data/LLaVA-Pretrain/images",
                  lr=1e-3, batch_size=256),
            instruct("data/llava_v1_5_mix665k.json", "data", batch_size=128, epochs=1),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(llava_15())

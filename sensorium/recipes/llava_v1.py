"""LLaVA (Liu et al., arXiv:2304.08485): CLIP at 224 pixels, one linear map, Vicuna.

Source: github.com/haotian-liu/LLaVA, scripts/pretrain.sh and finetune_full_schedule.sh, which
train Vicuna v1.3 with its own template; the paper's first weights were Vicuna v0. Batches: the table
of README.md as it was before LLaVA-1.5 (commit 6e63eef); 16 rows on eight GPUs make 128 in both scripts.
"""

from __future__ import annotations

from sensorium.input_projectors.linear import LinearConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.recipes.llava_stages import align, instruct
from sensorium.recipes.published_parts import clip_l, llama
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe


def llava_v1() -> Recipe:
    """595K captions for the projector, then 158K conversations for projector and LLM."""
    return Recipe(
        name="llava-v1",
        description="I+T→T: CLIP-L/224, one linear map, Vicuna-7B",
        published=Published(
            paper="2304.08485",
            # Its projector has always two layers, ours here one; all other parts are the same.
            oracle="LlavaForConditionalGeneration",
        ),
        model=ModelConfig(
            lanes={
                "image": LaneConfig(
                    encoder=clip_l(224),
                    projector=LinearConfig(),
                    resolution=FixedResolution(fit="crop"),
                )
            },
            backbone=llama("7b", "lmsys/vicuna-7b-v1.3"),
            template="vicuna",
        ),
        stages=(
            align("data/LLaVA-CC3M-Pretrain-595K/chat.json", "data/LLaVA-CC3M-Pretrain-595K/images",
                  lr=2e-3, batch_size=128),
            instruct("data/llava_instruct_158k.json", "data/coco/train2017", batch_size=32, epochs=3),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(llava_v1())

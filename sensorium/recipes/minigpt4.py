"""MiniGPT-4 (Zhu et al., arXiv:2304.10592): BLIP-2's frozen eyes, one linear map, frozen Vicuna.

Source: github.com/Vision-CAIR/MiniGPT-4, models/mini_gpt4.py, train_configs/minigpt4_stage*.yaml,
runners/runner_base.py. The linear map is `out`, the last layer of our Q-Former.
"""

from __future__ import annotations

from sensorium.data.config import FileSource
from sensorium.model.config import ModelConfig
from sensorium.model.learning import Learn
from sensorium.recipes.blip2_opt import blip2_lane
from sensorium.recipes.published_parts import llama
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig


def minigpt4() -> Recipe:
    """Captions of the web, then 3,500 long descriptions; only the linear map learns."""
    return Recipe(
        name="minigpt4",
        description="I+T→T: BLIP-2's frozen tower and Q-Former, one linear map, Vicuna-7B",
        published=Published(
            paper="2304.10592",
            # Around a Llama instead of OPT.
            oracle="Blip2ForConditionalGeneration",
            missing=("starting from the trained tower and Q-Former of an imported BLIP-2",),
            differs=(
                "pictures are squeezed to a square, not cropped at random",
                "gradients are clipped at a norm of 1",
                "the ### that ends an answer does not stop generation",
                "Vicuna v0's vocabulary is taken to be LLaMA's 32,000",
            ),
        ),
        model=ModelConfig(
            lanes={"image": blip2_lane()},
            backbone=llama("7b", "Vision-CAIR/vicuna-7b"),
            template="minigpt4",
        ),
        stages=(
            StageConfig(
                name="align",
                objective=CaptionConfig(layout="caption_line"),
                data=(
                    FileSource(path="data/laion", format="webdataset", weight=115),
                    FileSource(path="data/cc_sbu", format="webdataset", weight=14),
                ),
                learns=(_linear(1e-4),),
                steps=20_000,
                batch_size=256,  # 64 on each of four GPUs.
                max_length=64,
                schedule=ScheduleConfig(warmup_steps=5000, final_ratio=0.8),
                betas=(0.9, 0.999),
            ),
            StageConfig(
                name="describe",
                objective=InstructConfig(),
                # One of four instructions (prompts/alignment.txt) in front of each description.
                data=(FileSource(path="data/cc_sbu_align/samples.jsonl", format="samples"),),
                learns=(_linear(3e-5),),
                steps=1000,
                batch_size=12,
                max_length=256,
                schedule=ScheduleConfig(warmup_steps=200, final_ratio=1 / 3),
                betas=(0.9, 0.999),
            ),
        ),
    )


def _linear(lr: float) -> Learn:
    return Learn(part="projectors.image", module="out", lr=lr, weight_decay=0.05)


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(minigpt4())

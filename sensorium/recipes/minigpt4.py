"""MiniGPT-4 (Zhu et al., arXiv:2304.10592): BLIP-2's frozen eyes, one linear map, frozen Vicuna.

Source: github.com/Vision-CAIR/MiniGPT-4, models/mini_gpt4.py, train_configs/minigpt4_stage*.yaml.
The linear map is `out`, the last layer of our Q-Former; `start=FOLDER` takes the rest of the
Q-Former, and the tower, from an imported BLIP-2 (`sensorium import`) whose OPT may have any width.
"""

from __future__ import annotations

from sensorium.data.config import FileSource
from sensorium.model.config import ModelConfig
from sensorium.model.learning import Learn
from sensorium.recipes.blip2_parts import blip2_lane, lavis_stage
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.published_parts import llama
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig

# One of four instructions (prompts/alignment.txt) in front of each description.
DESCRIPTIONS = FileSource(path="data/cc_sbu_align/samples.jsonl", format="samples")


def minigpt4() -> Recipe:
    """Captions of the web, then 3,500 long descriptions; only the linear map learns."""
    web, vicuna = {"laion": 115, "cc_sbu": 14}, llama("7b", "Vision-CAIR/vicuna-7b")
    return Recipe(
        name="minigpt4",
        description="I+T→T: BLIP-2's frozen tower and Q-Former, one linear map, Vicuna-7B",
        published=Published(
            paper="2304.10592",
            oracle="Blip2ForConditionalGeneration",  # Around a Llama instead of OPT.
            differs=(
                "the Q-Former to start from is one before OPT; the original's is one before Flan-T5-XXL",
                "pictures are squeezed to a square, not cropped at random",
                "gradients are clipped at a norm of 1",
                "the ### that ends an answer does not stop generation",
                "Vicuna v0's vocabulary is taken to be LLaMA's 32,000",
            ),
        ),
        model=ModelConfig(lanes={"image": blip2_lane()}, backbone=vicuna, template="minigpt4"),
        stages=(
            lavis_stage("align", CaptionConfig(layout="caption_line"), mixed(web, "webdataset"),
                        (_linear(1e-4),), steps=20_000,
                        batch_size=256,  # 64 on each of four GPUs.
                        max_length=64, warmup_steps=5000, final_ratio=0.8),
            lavis_stage("describe", InstructConfig(), (DESCRIPTIONS,), (_linear(3e-5),), steps=1000,
                        batch_size=12, max_length=256, warmup_steps=200, final_ratio=1 / 3),
        ),
    )  # fmt: skip


def _linear(lr: float) -> Learn:
    return Learn(part="projectors.image", module="out", lr=lr, weight_decay=0.05)


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(minigpt4())

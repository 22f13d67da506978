"""The data of MiniGPT-v2 (arXiv:2310.09478) and what its three stages share.

Source: github.com/Vision-CAIR/MiniGPT-4, train_configs/minigptv2_finetune.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping

from sensorium.model.learning import Learn
from sensorium.recipes.blip2_parts import lavis_stage
from sensorium.recipes.mixtures import mixed
from sensorium.training.config import StageConfig
from sensorium.training.objectives.next_token import InstructConfig

# The second stage drops the sets whose captions nobody checked.
CHECKED = ("coco_caption", "textcaps_caption", "refcoco", "refcocop", "refcocog", "invrefcoco",
           "invrefcocop", "invrefcocog", "refvg", "gqa", "coco_vqa", "ocrvqa", "ok_vqa",
           "aok_vqa")  # fmt: skip
FINE: dict[str, float | None] = dict.fromkeys(CHECKED)
WEAK: dict[str, float | None] = dict.fromkeys(("laion", "cc3m", "sbu", "grit_20m", *CHECKED))
# How often a set is drawn, and rows of it that are then taken on each GPU.
DRAWS = {
    "multitask_conversation": (50, 2), "llava_conversation": (30, 2), "unnatural_instruction": (10, 1),
    "refvg": (40, 6), "llava_detail": (20, 4), "llava_reason": (80, 4),
    "flickr_grounded_caption": (80, 2), "flickr_CaptionToPhrase": (80, 2),
    "flickr_ObjectToPhrase": (80, 2), "coco_caption": (10, 6), "textcaps_caption": (30, 6),
    "refcoco": (25, 6), "refcocop": (25, 6), "refcocog": (25, 6), "invrefcoco": (10, 6),
    "invrefcocop": (10, 6), "invrefcocog": (10, 6), "coco_vqa": (15, 6), "ok_vqa": (8, 6),
    "aok_vqa": (12, 6), "gqa": (50, 6), "ocrvqa": (30, 6),
}  # fmt: skip
THIRD = {name: float(draws * rows) for name, (draws, rows) in DRAWS.items()}


def minigpt_v2_stage(
    name: str, sets: Mapping[str, float | None], *, lr: float, steps: int, batch_size: int
) -> StageConfig:
    """A stage in which linear map and adapter learn; the rate falls to a tenth."""
    parts = ("projectors.image", "adapter")
    return lavis_stage(
        name,
        InstructConfig(),
        mixed(sets, "samples", root="data/minigpt_v2", suffix=".jsonl"),
        tuple(Learn(part=part, lr=lr, weight_decay=0.05) for part in parts),
        steps=steps,
        batch_size=batch_size,
        max_length=1536,  # The picture's 256, the question, at most 1,024 of the answer.
        warmup_steps=1000,
        final_ratio=0.1,
    )

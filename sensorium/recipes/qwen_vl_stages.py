"""What the stages of Qwen-VL (arXiv:2308.12966, tables 2, 3 and 8) share, and their data."""

from __future__ import annotations

from typing import Any

from sensorium.model.learning import Learn
from sensorium.recipes.mixtures import mixed
from sensorium.training.config import ScheduleConfig, StageConfig
from sensorium.training.objectives.base import ObjectiveConfig

SEEN, LM = ("encoders.image", "projectors.image"), "backbone"
# 1.4 billion pairs, what was left of 5 billion.
WEB = ("laion_en", "laion_coco", "datacomp", "coyo", "cc12m", "cc3m", "sbu", "coco", "laion_zh", "own_zh")
# 77 million rows: captions, questions, grounding in three forms, reading, text alone.
TASKS = ("captions", "gqa", "vgqa", "vqa_v2", "dvqa", "ocr_vqa", "doc_vqa", "text_vqa", "chart_qa", "ai2d",
         "grit", "visual_genome", "refcoco", "refcoco_plus", "refcocog", "synthdog", "common_crawl_pdf_html",
         "own_text")  # fmt: skip
TALK = ("instruct_350k",)


def qwen_vl_stage(
    name: str, objective: ObjectiveConfig, sets: tuple[str, ...], parts: tuple[str, ...], **changes: Any
) -> StageConfig:
    """A stage: cosine from `lr` to `last` after `warmup` steps; in the tower it falls from block to block.

    Args:
        parts: what learns.
        changes: those three, `layer_decay`, and what else the stage sets.
    """
    lr, last, decay = changes.pop("lr"), changes.pop("last"), changes.pop("layer_decay", None)
    settings: dict[str, Any] = {"max_length": 2048, "precision": "bf16"}
    return StageConfig(
        name=name,
        objective=objective,
        data=mixed(dict.fromkeys(sets), "samples", root="data/qwen_vl", suffix=".jsonl"),
        learns=tuple(Learn(part=part, lr=lr, weight_decay=0.05,
                           layer_decay=decay if part == SEEN[0] else None) for part in parts),
        schedule=ScheduleConfig(warmup_steps=changes.pop("warmup"), final_ratio=last / lr),
        **(settings | changes),
    )

"""InstructBLIP (Dai et al., arXiv:2305.06500) with Vicuna-7B: BLIP-2 whose Q-Former reads the question.

Source: github.com/salesforce/LAVIS, models/blip2_models/blip2_vicuna_instruct.py, for the graph; the
repository has no training file. `start=FOLDER` takes tower and Q-Former of an imported BLIP-2 or InstructBLIP; the
words that a BLIP-2 has none of begin as BERT's, as there.
"""

from __future__ import annotations

from sensorium.model.config import ModelConfig
from sensorium.model.learning import Learn
from sensorium.recipes.blip2_parts import BERT, blip2_lane, lavis_stage
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.published_parts import llama
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.next_token import InstructConfig

# The thirteen that are held in.
SETS = ("coco_caption", "web_capfilt", "textcaps", "vqav2", "okvqa", "aokvqa", "ocrvqa", "coco_vqg",
        "okvqa_vqg", "aokvqa_vqg", "llava_conversation", "llava_detail", "llava_reason")  # fmt: skip

FROM_MEMORY = (
    "rates, decay and the names of the sets are quoted from memory of the paper",
    "sets are mixed evenly, not by the square roots of their sizes and by hand",
)


def instructblip() -> Recipe:
    """Q-Former and its map learn from instructions; tower and language model are frozen."""
    lane = blip2_lane(words=30523, reader=BERT)
    vicuna = llama("7b", "lmsys/vicuna-7b-v1.1")
    return Recipe(
        name="instructblip",
        description="I+T→T: EVA-CLIP-g/224, Q-Former that reads the question, Vicuna-7B",
        published=Published(
            paper="2305.06500",
            oracle="InstructBlipForConditionalGeneration",
            differs=(
                *FROM_MEMORY,
                "no [PAD] is added to Vicuna's vocabulary",
            ),
        ),
        model=ModelConfig(lanes={"image": lane}, backbone=vicuna, template="bare"),
        stages=(
            lavis_stage(
                "instruct", InstructConfig(),
                mixed(dict.fromkeys(SETS), "samples", suffix=".jsonl"),
                (Learn(part="projectors.image", lr=1e-5, weight_decay=0.05),),
                steps=60_000, batch_size=128, max_length=416, warmup_steps=1000, final_ratio=0.0,
            ),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(instructblip())

"""Emu3 (arXiv:2409.18869): one Llama that reads and writes text and pictures as tokens; here the tuning for drawing.

Source: github.com/baaivision/Emu3, scripts/t2i_sft.sh, emu3/train/datasets.py."""

from __future__ import annotations

from sensorium.data.config import FileSource
from sensorium.model.learning import Learn
from sensorium.recipes.native_parts import emu3_model
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig


def emu3() -> Recipe:
    """Rows are a description, and a picture as its answer."""
    return Recipe(
        name="emu3",
        description="I+T→T+I: VQ of 32,768 codes as words of a Llama of 8B, no encoder",
        published=Published(
            paper="2409.18869",
            oracle="Emu3ForConditionalGeneration",
            missing=(
                "pretraining from scratch: rate, lengths of rows and weights of losses are published, neither steps, batch, data nor code",
                "tuning of the chat model, and DPO: their order and losses are published, no rates, steps or code",
                "video: of it the tokenizer is published, which takes frames by four, and that rows are 131,072 tokens then",
            ),
            differs=(
                "starts from Emu3-Gen by start=FOLDER of the imported checkpoint, as its picture tokenizer does",
                "a batch is that of one of its GPUs, 2 rows by 4 passes; how many there were is not said",
                "pictures of any size up to a megapixel (the original: tokenised beforehand, at the area of 720 x 720)",
                "several pictures of one prompt are tokenised each by itself; transformers pads them to the largest, so that codes "
                "at their borders are others",
            ),
        ),
        model=emu3_model(),
        stages=(
            StageConfig(
                name="draw", objective=CaptionConfig(layout="emu3_gen", unsteered=0.05, text_weight=0.0),
                data=(FileSource(path="data/emu3/t2i.jsonl", format="samples"),),
                learns=(Learn(part="backbone", lr=1e-5, weight_decay=0.1),), epochs=4, batch_size=2, accumulate=4, max_length=9216,
                clip_norm=5.0, betas=(0.9, 0.95), epsilon=1e-6, precision="bf16",
                schedule=ScheduleConfig(shape="cosine", warmup_steps=30, final_ratio=0.1),
            ),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(emu3())

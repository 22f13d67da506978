"""Emu2-Chat (Sun et al., arXiv:2312.13286): Emu2 tuned to follow instructions, with four times as many tokens of a picture.

Source: the paper's section 2.3.1, appendix C and table 8; github.com/baaivision/Emu, Emu2/emu/chat.py and emu.py.
"""

from __future__ import annotations

from sensorium.model.learning import Learn
from sensorium.recipes.emu_parts import CONCISE, UNKNOWN_DECAY, emu2_model
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import InstructConfig

# What is wanted of these stands behind their questions; rows of the last three hold boxes.
SHORT = ("coco_caption", "textcaps", "vqav2", "okvqa", "gqa", "textvqa", "m3it_classification", "refcoco", "refcoco_plus", "refcocog")
TALKS = ("llava_instruct", "llavar", "sharegpt", "alpaca", "videochat", "clock_reading")


def emu2_chat() -> Recipe:
    """One stage behind Emu2: answers are learned, short ones behind a system message of their own."""
    short = mixed(dict.fromkeys(SHORT), "samples", root="data/emu2_chat", suffix=".jsonl")
    return Recipe(
        name="emu2-chat",
        description="I+box+T→T,box: Emu2 with 256 tokens of a picture, tuned to follow instructions",
        published=Published(
            paper="2312.13286", second="second writing (test_emu.py)",
            differs=(
                "starts from Emu2, by start=FOLDER",
                UNKNOWN_DECAY,
                "what learns is not published: all but the tower, which is frozen in front of this stage and for Emu2-Gen",
                "sets are mixed by their sizes; shares are not published",
                "how rows of places are worded is not published; the token that asks for places stands where their code writes it, behind [ASSISTANT]:",
                "eight frames of a video, there 8, 12 or 16 at random",
            ),
        ),
        model=emu2_model(chats=True),
        stages=(
            StageConfig(
                name="instruct", objective=InstructConfig(),
                data=(*(one.model_copy(update={"system": CONCISE}) for one in short),
                      *mixed(dict.fromkeys(TALKS), "samples", root="data/emu2_chat", suffix=".jsonl")),
                learns=tuple(Learn(part=part, lr=1e-5, weight_decay=0.05) for part in ("projectors.image", "backbone")),
                steps=8000, batch_size=768, max_length=2048, betas=(0.9, 0.98), epsilon=1e-6, clip_norm=5.0, precision="bf16",
                schedule=ScheduleConfig(warmup_steps=100, final_ratio=0.0),
            ),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(emu2_chat())

"""Qwen2-VL (Wang et al., arXiv:2409.12191): a tower for pictures of any size, a 2x2 merger, Qwen2 with
positions in time, rows and columns.

Source: sections 2.1 and 2.2 of the paper; the training code was not released.
"""

from __future__ import annotations

from typing import Literal

from sensorium.encoders.qwen2_vit import Qwen2VitConfig
from sensorium.input_projectors.patch_merger import PatchMergerConfig
from sensorium.model.config import ModelConfig
from sensorium.recipes import qwen_vl_parts as qwen
from sensorium.recipes.published_parts import QWEN2
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig


def qwen2_vl(size: Literal["1.5b", "7b"] = "7b") -> Recipe:
    """The tower learns on 600B tokens, everything on 800B more, the LLM alone on instructions."""
    name = {"1.5b": "2B", "7b": "7B"}[size]
    backbone = qwen.mrope_lm("qwen2_vl_text", f"Qwen/Qwen2-{size.upper()}",
                             QWEN2[size] | {"max_position_embeddings": 32768})  # fmt: skip
    pages = CaptionConfig(layout="document")
    return Recipe(
        name="qwen2-vl" + ("" if size == "7b" else f"-{name.lower()}"),
        description=f"I+T→T: 675M tower for any size, 2x2 merger, Qwen2-{size.upper()} with M-RoPE",
        published=Published(
            paper="2409.12191",
            oracle="Qwen2VLForConditionalGeneration",
            missing=(
                "videos: two frames a patch, and places in time",
                "starting from DFN's ViT, whose file is read: how its positions and patches became this tower's is unknown",
                "<|vision_start|> and <|vision_end|>, which Qwen2's tokenizer.json lacks though its table has rows",
            ),
            differs=(qwen.UNKNOWN, qwen.UNRELEASED, "boxes are not written; the original has marks for them"),
        ),
        model=ModelConfig(lanes={"image": qwen.native_lane(Qwen2VitConfig(), PatchMergerConfig())},
                          backbone=backbone, template="qwen2_vl"),
        stages=(
            qwen.stage("vision", pages, (qwen.IMAGE, qwen.PROJECTOR), max_length=8192),
            qwen.stage("all", pages, (qwen.IMAGE, qwen.PROJECTOR, qwen.BACKBONE), max_length=8192),
            qwen.stage("instruct", InstructConfig(), (qwen.BACKBONE,), max_length=8192),
        ),
    )  # fmt: skip


def qwen2_vl_2b() -> Recipe:
    """The same with Qwen2-1.5B, whose output layer is its embedding."""
    return qwen2_vl("1.5b")


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(qwen2_vl())

"""Qwen2.5-VL (Bai et al., arXiv:2502.13923): Qwen2-VL with windows, RMSNorm and SwiGLU in its tower.

Source: sections 2.2 and 2.3 of the paper, and its table 2; the training code was not released.
"""

from __future__ import annotations

from typing import Any, Literal

from sensorium.encoders.qwen25_vit import Qwen25VitConfig
from sensorium.input_projectors.patch_merger import PatchMergerConfig
from sensorium.model.config import ModelConfig
from sensorium.recipes import qwen_vl_parts as qwen
from sensorium.recipes.published_parts import QWEN2
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig

SIZES: dict[str, dict[str, Any]] = {
    "3b": {"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
           "num_attention_heads": 16, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "7b": QWEN2["7b"],
}  # fmt: skip


def qwen25_vl(size: Literal["3b", "7b"] = "7b") -> Recipe:
    """The tower learns, then everything, on short rows and on long ones; then the LLM on instructions."""
    backbone = qwen.mrope_lm("qwen2_5_vl_text", f"Qwen/Qwen2.5-{size.upper()}",
                             SIZES[size] | {"max_position_embeddings": 128000})  # fmt: skip
    pages = CaptionConfig(layout="document")
    return Recipe(
        name="qwen2.5-vl" + ("" if size == "7b" else f"-{size}"),
        description=f"I+T→T: tower with windows for any size, 2x2 merger, Qwen2.5-{size.upper()} with M-RoPE",
        published=Published(
            paper="2502.13923",
            oracle="Qwen2_5_VLForConditionalGeneration",
            missing=("videos: two frames a patch, and places in time",
                     "the tower's own training in front of the first stage, against texts as CLIP",
                     "direct preference optimisation behind the last stage"),
            differs=(qwen.UNKNOWN, qwen.UNRELEASED,
                     "boxes are not written; the original writes pixels as JSON"),
        ),
        model=ModelConfig(lanes={"image": qwen.native_lane(Qwen25VitConfig(), PatchMergerConfig(norm="rms"))},
                          backbone=backbone, template="qwen2_vl"),
        stages=(qwen.stage("vision", pages, (qwen.IMAGE, qwen.PROJECTOR), max_length=8192, pack=True),
                qwen.stage("all", pages, (qwen.IMAGE, qwen.PROJECTOR, qwen.BACKBONE), max_length=8192, pack=True),
                qwen.stage("long", pages, (qwen.IMAGE, qwen.PROJECTOR, qwen.BACKBONE), max_length=32768, pack=True),
                qwen.stage("instruct", InstructConfig(), (qwen.PROJECTOR, qwen.BACKBONE), max_length=32768)),
    )  # fmt: skip


def qwen25_vl_3b() -> Recipe:
    """The same with Qwen2.5-3B, whose output layer is its embedding."""
    return qwen25_vl("3b")


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(qwen25_vl())

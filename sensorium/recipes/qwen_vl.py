"""Qwen-VL (Bai et al., arXiv:2308.12966): OpenCLIP's bigG at 448 pixels, a position-aware adapter of
256 queries, Qwen-7B; boxes as text.

Sources: `visual.py`, `modeling_qwen.py` and `config.json` of huggingface.co/Qwen/Qwen-VL-Chat; the paper,
section 3 and table 8. An imported Qwen-VL (`sensorium import`) is taken by `start=FOLDER`.
"""

from __future__ import annotations

from sensorium.core.weights import HubSource
from sensorium.encoders.qwen_vit import QwenVitConfig
from sensorium.input_projectors.position_aware import PositionAwareConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.recipes.published_parts import qwen_7b
from sensorium.recipes.qwen_vl_stages import LM, SEEN, TALK, TASKS, WEB, qwen_vl_stage
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig

PLAIN = CaptionConfig(layout="qwen_vl_caption")


def qwen_vl() -> Recipe:
    """Captions at 224 pixels with a frozen LLM, seven tasks at 448, then talk with a frozen tower."""
    bigg = HubSource(id="laion/CLIP-ViT-bigG-14-laion2B-39B-b160k")
    lane = LaneConfig(encoder=QwenVitConfig(weights=(bigg,)), projector=PositionAwareConfig(),
                      resolution=FixedResolution(fit="stretch"))  # fmt: skip
    return Recipe(
        name="qwen-vl",
        description="I+box+T→T,box: OpenCLIP-bigG/448, 256 queries with positions, Qwen-7B",
        published=Published(
            paper="2308.12966",
            recorded="Qwen-VL-Chat",
            differs=(
                "decay and betas are quoted from memory of the paper's appendix",
                "sets mixed by size; how its makers weighed them was not published",
                "its talk also learns each turn's <|im_start|> and the user's <|im_end|>",
            ),
        ),
        model=ModelConfig(lanes={"image": lane}, backbone=qwen_7b(), template="qwen_vl", boxes="qwen_vl"),
        stages=(
            qwen_vl_stage("pretrain", PLAIN, WEB, SEEN, lr=2e-4, last=1e-6, warmup=500, batch_size=30_720,
                          steps=50_000, max_length=512, picture_px=224, layer_decay=0.95),
            qwen_vl_stage("tasks", PLAIN, TASKS, (*SEEN, LM), lr=5e-5, last=1e-5, warmup=400,
                          batch_size=4096, steps=19_000, pack=True, layer_decay=0.95),
            qwen_vl_stage("talk", InstructConfig(), TALK, (SEEN[1], LM), lr=1e-5, last=1e-6, warmup=3000,
                          batch_size=128, steps=8000),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(qwen_vl())

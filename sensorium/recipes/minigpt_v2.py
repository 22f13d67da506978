"""MiniGPT-v2 (Chen et al., arXiv:2310.09478): EVA-CLIP-g at 448, four neighbours in one token,
Llama-2-chat-7B with an adapter. Boxes are text, `{<12><30><56><87>}`, in hundredths of the picture.

Source: github.com/Vision-CAIR/MiniGPT-4, models/minigpt_v2.py, train_configs/minigptv2_finetune.yaml
(`minigpt_v2_sets`), which is the third stage; the others are the paper's, section 2.
"""

from __future__ import annotations

from sensorium.encoders.blip2_vit import Blip2VitConfig
from sensorium.input_projectors.group_concat import GroupConcatConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, LoraConfig, ModelConfig
from sensorium.recipes.minigpt_v2_sets import FINE, THIRD, WEAK, minigpt_v2_stage
from sensorium.recipes.published_parts import llama_2_chat_7b
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe


def minigpt_v2() -> Recipe:
    """Linear map and adapter learn in all stages; tower and LLM are frozen."""
    lane = LaneConfig(
        encoder=Blip2VitConfig(image_size_px=448, feature="patch"),
        projector=GroupConcatConfig(group=4),
        resolution=FixedResolution(fit="stretch"),
    )
    return Recipe(
        name="minigpt-v2",
        description="I+box+T→T,box: EVA-CLIP-g/448, groups of four, Llama-2-chat-7B with LoRA",
        published=Published(
            paper="2310.09478", second="parts of transformers (test_minigpt_v2_layout.py)",
            missing=(
                "writing boxes and task words into the text of rows; the files hold them already",
            ),
            differs=(
                "EVA-CLIP-g, from an imported BLIP-2 (`start=FOLDER`) and stretched, has its last norm trained; not so there",
                "of the first two stages, all is quoted from memory of the paper; sets mixed by size",
                "the third stage's batch is 24 rows of all its sets, not one set's own on each GPU",
                "pictures are squeezed to a square, not cropped at random",
                "no <s> in front of a second question",
                "gradients are clipped at a norm of 1",
            ),
        ),
        model=ModelConfig(
            lanes={"image": lane},
            backbone=llama_2_chat_7b(),
            adapter=LoraConfig(rank=64, alpha=16.0, dropout=0.05, targets=("q_proj", "v_proj")),
            template="minigpt_v2",
        ),
        stages=(
            minigpt_v2_stage("weak", WEAK, lr=1e-4, steps=400_000, batch_size=96),
            minigpt_v2_stage("fine", FINE, lr=1e-5, steps=50_000, batch_size=64),
            minigpt_v2_stage("instruct", THIRD, lr=1e-5, steps=50_000, batch_size=24),
        ),
    )


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(minigpt_v2())

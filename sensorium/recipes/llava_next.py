"""LLaVA-NeXT, also LLaVA-1.6 (Liu et al., llava-vl.github.io/blog/2024-01-30-llava-next): LLaVA-1.5
on AnyRes tiles, with an encoder that learns. Its paper is LLaVA-1.5's, arXiv:2310.03744v2.

Source: github.com/LLaVA-VL/LLaVA-NeXT, scripts/train/pretrain_clip.sh and direct_finetune_clip.sh,
which its README calls this model's; conversation.py.
"""

from __future__ import annotations

from sensorium.input_projectors.mlp import MlpConfig
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.recipes.anyres_parts import NEXT_GRIDS, anyres
from sensorium.recipes.llava_stages import align, tune_all
from sensorium.recipes.published_parts import clip_l, mistral_7b_instruct, vicuna_15
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe


def llava_next() -> Recipe:
    """558K captions for the projector, then conversations for everything."""
    lane = LaneConfig(
        encoder=clip_l(336), projector=MlpConfig(depth=2), resolution=anyres(NEXT_GRIDS)
    )
    return Recipe(
        name="llava-next",
        description="I+T→T: CLIP-L/336 on AnyRes tiles, two-layer MLP, Vicuna-7B",
        published=Published(
            paper="2310.03744",
            oracle="LlavaNextForConditionalGeneration",
            differs=(
                "the scripts give rows a GPU (16 and 4) and no number of GPUs; batches are LLaVA-1.5's",
                "rates are the scripts', which name Qwen2 as the LLM",
                "the first stage sees tiles with line ends, the original's one square picture",
                "rows are not grouped by length, and have at most 4,096 tokens, Vicuna's positions",
            ),
        ),
        model=ModelConfig(lanes={"image": lane}, backbone=vicuna_15("7b"), template="vicuna"),
        stages=(
            align("data/blip_558k/blip_558k_plain.json", "data/blip_558k/images",
                  lr=1e-3, batch_size=256, max_length=4096),
            tune_all("instruct", ("data/llava_1_6.json",), "data", batch_size=128, max_length=4096),
        ),
    )  # fmt: skip


def llava_next_mistral() -> Recipe:
    """The same with Mistral-7B-Instruct."""
    base, description = llava_next(), "I+T→T: CLIP-L/336 on AnyRes tiles, two-layer MLP, Mistral-7B"
    changes = {"backbone": mistral_7b_instruct(), "template": "mistral"}
    model = base.model.model_copy(update=changes)
    named = {"name": "llava-next-mistral", "description": description}
    return base.model_copy(update={**named, "model": model})


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(llava_next())

"""LLaVA-1.5 (Liu et al., arXiv:2310.03744): CLIP at 336 pixels, a two-layer MLP, Vicuna v1.5.

Source: github.com/haotian-liu/LLaVA, scripts/v1_5/pretrain.sh and finetune.sh.
"""

from __future__ import annotations

from sensorium.input_projectors.mlp import MlpConfig
from sensorium.model.config import LaneConfig, LoraConfig, ModelConfig
from sensorium.model.learning import Learn
from sensorium.recipes.llava_stages import PROJECTOR, align, instruct
from sensorium.recipes.published_parts import Size, clip_l, vicuna_15
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe


def llava_15(size: Size = "7b") -> Recipe:
    """558K captions for the projector, then 665K conversations for projector and LLM."""
    return Recipe(
        name="llava-1.5",
        description="I+T→T: CLIP-L/336, two-layer MLP, Vicuna-7B",
        published=Published(
            paper="2310.03744",
            oracle="LlavaForConditionalGeneration",
            differs=(
                "pictures are padded with white (the original: the mean colour, and in the first "
                "stage a centre crop)",
                "rows are not grouped by length",
            ),
        ),
        model=ModelConfig(
            lanes={"image": LaneConfig(encoder=clip_l(336), projector=MlpConfig(depth=2))},
            backbone=vicuna_15(size),
            template="vicuna",
        ),
        stages=(
            align("data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", "data/LLaVA-Pretrain/images",
                  lr=1e-3, batch_size=256),
            instruct("data/llava_v1_5_mix665k.json", "data", batch_size=128, epochs=1),
        ),
    )  # fmt: skip


def llava_15_13b() -> Recipe:
    """The same with Vicuna-13B."""
    changes = {"name": "llava-1.5-13b", "description": "I+T→T: CLIP-L/336, two-layer MLP, Vicuna-13B"}
    return llava_15("13b").model_copy(update=changes)


def llava_15_lora() -> Recipe:
    """The 7B whose LLM learns through an adapter alone (scripts/v1_5/finetune_lora.sh)."""
    base = llava_15()
    captions, talk = base.stages
    learns = (Learn(part=PROJECTOR, lr=2e-5), Learn(part="adapter", lr=2e-4))
    adapter = LoraConfig(rank=128, alpha=256.0, dropout=0.05)
    return base.model_copy(
        update={
            "name": "llava-1.5-lora",
            "description": "I+T→T: CLIP-L/336, two-layer MLP, Vicuna-7B with LoRA",
            "model": base.model.model_copy(update={"adapter": adapter}),
            "stages": (captions, talk.model_copy(update={"learns": learns})),
        }
    )


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(llava_15())


def tiny_lora() -> Recipe:
    """The same with an adapter."""
    return shrink(llava_15_lora())

"""LLaVA-1.5 (arXiv:2310.03744) with a larger language model, and with an adapter.

Source: github.com/haotian-liu/LLaVA, scripts/v1_5/finetune_lora.sh.
"""

from __future__ import annotations

from sensorium.model.config import LoraConfig
from sensorium.model.learning import Learn
from sensorium.recipes.llava_15 import llava_15
from sensorium.recipes.llava_stages import PROJECTOR
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Recipe


def llava_15_13b() -> Recipe:
    """The same with Vicuna-13B."""
    changes = {"name": "llava-1.5-13b", "description": "I+T→T: CLIP-L/336, two-layer MLP, Vicuna-13B"}
    return llava_15("13b").model_copy(update=changes)


def llava_15_lora() -> Recipe:
    """The 7B whose LLM learns through an adapter alone."""
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


def tiny_lora() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(llava_15_lora())

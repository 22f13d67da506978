"""What MM1's recipes share (arXiv:2403.09611): its rule for the learning rate, its stages, and language models
that stand in for its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.model.learning import Learn
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.published_parts import llama
from sensorium.training.config import ScheduleConfig, StageConfig
from sensorium.training.objectives.base import ObjectiveConfig

Mm1Size = Literal["3b", "7b", "30b"]
DIFFERS = (
    "unknown: the language models' widths, layers and vocabularies; LLaMA's shape of about that size stands in",
    "unknown: which layer of the tower is read, and whether it is normed; here the last, normed",
    "unknown: the chat template of the second stage; here Vicuna's",
    "Adafactor's rate as torch takes it, a share of each matrix's own size; the paper does not say",
    "one file for each kind of data; the sets inside them and their shares are the paper's table 2",
)


def learning_rate(parameters: float) -> float:
    """The paper's fit of the best peak rate, for a language model of so many parameters."""
    return math.exp(-0.4214 * math.log(parameters) - 0.5535)


# As printed, to one digit of what the rule gives.
MM1_LR: dict[Mm1Size, float] = {"3b": 6e-5, "7b": 4e-5, "30b": 2e-5}
SHAPES: dict[Mm1Size, tuple[int, int, int, int]] = {
    "3b": (3200, 8640, 26, 32), "7b": (4096, 11008, 32, 32), "30b": (6656, 17920, 60, 52),
}  # fmt: skip
"""Width, feed-forward width, layers, heads of OpenLLaMA-3B, LLaMA-7B and LLaMA-30B."""


def stand_in(size: Mm1Size) -> CausalLMConfig:
    """A decoder of about the published size; the original's shape was not published."""
    width, inner, layers, heads = SHAPES[size]
    return llama(
        "7b", None, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=4096,
    )  # fmt: skip


def mm1_stage(
    name: str, objective: ObjectiveConfig, shares: Mapping[str, float], **changes: Any
) -> StageConfig:
    """A stage in which all parts learn, at one rate; cosine to `last` of it.

    Args:
        changes: `lr`, `decay`, `last`, perhaps `warmup_steps`, and what else the stage sets. The
            paper scales its decay by the rate (0.1 of it), which is what AdamW does here.
    """
    lr, decay = changes.pop("lr"), changes.pop("decay")
    schedule = ScheduleConfig(
        warmup_steps=changes.pop("warmup_steps", 0), final_ratio=changes.pop("last")
    )
    parts = ("encoders.image", "projectors.image", "backbone")
    return StageConfig(
        name=name,
        objective=objective,
        data=mixed(dict(shares), "samples", root="data/mm1", suffix=".jsonl"),
        learns=tuple(Learn(part=part, lr=lr, weight_decay=decay) for part in parts),
        schedule=schedule,
        precision="bf16",
        **changes,
    )

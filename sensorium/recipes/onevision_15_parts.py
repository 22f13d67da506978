"""The language models of LLaVA-OneVision-1.5, and its stages as the quick-start scripts train the 4B
(github.com/EvolvingLMMs-Lab/LLaVA-OneVision-1.5, examples/llava_ov_1_5/quick_start).

All stages: rows of 32,768 tokens, AdamW, cosine to 1e-6 after 0.2 % of warm-up, bf16.
"""

from __future__ import annotations

from typing import Any, Literal

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.weights import HubSource
from sensorium.model.learning import Learn
from sensorium.recipes.mixtures import mixed
from sensorium.training.config import ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import InstructConfig

IMAGE, PROJECTOR, BACKBONE = "encoders.image", "projectors.image", "backbone"
Qwen3Size = Literal["4b", "8b"]
SIZES: dict[Qwen3Size, tuple[str, dict[str, Any]]] = {
    "4b": ("Qwen/Qwen3-4B-Instruct-2507", {"hidden_size": 2560, "intermediate_size": 9728,
           "max_position_embeddings": 262144, "rope_theta": 5000000.0}),
    "8b": ("Qwen/Qwen3-8B", {"hidden_size": 4096, "intermediate_size": 12288,
           "max_position_embeddings": 40960, "rope_theta": 1000000.0}),
}  # fmt: skip
SHAPE = {"model_type": "qwen3", "vocab_size": 151936, "num_hidden_layers": 36, "num_attention_heads": 32,
         "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-6, "bos_token_id": 151643,
         "eos_token_id": 151645, "tie_word_embeddings": False}  # fmt: skip


def qwen3(size: Qwen3Size) -> CausalLMConfig:
    """Qwen3 (arXiv:2505.09388) with an output layer of its own, as this system's models have it."""
    hub_id, sizes = SIZES[size]
    return CausalLMConfig(arch=SHAPE | sizes, weights=(HubSource(id=hub_id),))


def stage(
    name: str, data: str, learns: tuple[str, ...], *, lr: float = 1e-5, decay: float = 0.0, **changes: Any
) -> StageConfig:
    """One stage.

    Args:
        data: a folder of tar files.
        learns: the parts, all at one rate.
        changes: what else the stage sets.
    """
    settings: dict[str, Any] = {
        "max_length": 32768,
        "pack": True,
        "schedule": ScheduleConfig(warmup_ratio=0.002, final_ratio=1e-6 / lr),
        "betas": (0.9, 0.99),
        "precision": "bf16",
    }
    return StageConfig(
        name=name,
        objective=InstructConfig(),
        data=mixed({data: None}, "webdataset"),
        learns=tuple(Learn(part=part, lr=lr, weight_decay=decay) for part in learns),
        **(settings | changes),
    )

"""Parts and stages that Qwen2-VL and Qwen2.5-VL share.

Sizes: config.json and preprocessor_config.json of each system's Instruct models.
"""

from __future__ import annotations

from typing import Any

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.parts import EncoderConfig
from sensorium.core.weights import HubSource
from sensorium.input_projectors.patch_merger import PatchMergerConfig
from sensorium.media.native import NativeResolution
from sensorium.model.config import LaneConfig
from sensorium.model.learning import Learn
from sensorium.recipes.mixtures import mixed
from sensorium.training.config import ScheduleConfig, StageConfig
from sensorium.training.objectives.base import ObjectiveConfig

IMAGE, PROJECTOR, BACKBONE = "encoders.image", "projectors.image", "backbone"
UNKNOWN = (
    "learning rates, batches, schedules and how pages were written are not published: those here "
    "are ours, and pages have no marks around their pictures"
)
UNRELEASED = "the data were not released: one file stands for each stage's"


def mrope_lm(model_type: str, hub_id: str, sizes: dict[str, Any]) -> CausalLMConfig:
    """A Qwen language model whose heads turn by time, row and column: 16, 24 and 24 of 64 pairs."""
    arch: dict[str, Any] = {
        "model_type": model_type,
        **sizes,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0,
                            "mrope_section": [16, 24, 24]},
        "bos_token_id": 151643,
        "eos_token_id": 151645,
    }  # fmt: skip
    return CausalLMConfig(arch=arch, weights=(HubSource(id=hub_id),))


def native_lane(encoder: EncoderConfig, projector: PatchMergerConfig) -> LaneConfig:
    """From 4 to 16,384 tokens for a picture, each of 28 x 28 pixels."""
    sizes = NativeResolution(min_pixels=4 * 28 * 28, max_pixels=16384 * 28 * 28)
    return LaneConfig(encoder=encoder, projector=projector, resolution=sizes)


def stage(
    name: str, objective: ObjectiveConfig, learns: tuple[str, ...], *, max_length: int, pack: bool = False
) -> StageConfig:
    """One pass over a stage's file, all parts at one rate."""
    return StageConfig(
        name=name,
        objective=objective,
        data=mixed({name: None}, "samples", suffix=".jsonl"),
        learns=tuple(Learn(part=part, lr=1e-5) for part in learns),
        epochs=1,
        batch_size=256,
        max_length=max_length,
        pack=pack,
        schedule=ScheduleConfig(warmup_ratio=0.03, final_ratio=0.0),
        precision="bf16",
    )

"""What CogVLM (arXiv:2311.03079) and its relatives share: the graph, and the settings of all stages.

Sizes: github.com/THUDM/CogVLM (utils/models) and configuration_cogvlm.py of THUDM/cogvlm-chat-hf.
"""

from __future__ import annotations

from typing import Any

from sensorium.core.weights import FileSource
from sensorium.encoders.eva2 import Eva2Config
from sensorium.fusion.visual_expert import VisualExpertConfig
from sensorium.fusion.visual_expert_detail import VisualExpertDetailConfig
from sensorium.input_projectors.glu import GluConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.learning import Learn
from sensorium.recipes.published_parts import llama
from sensorium.training.config import ScheduleConfig, StageConfig

PROJECTOR: str = "projectors.image"
EXPERT: str = "fusion"
TOWER: str = "encoders.image"
EVA2_CLIP_E = (FileSource(path="weights/EVA02_CLIP_E.pt", format="eva_clip"),)
"""A release of github.com/baaivision/EVA, put there by hand; which of the two is not said."""


def cogvlm_model(size_px: int) -> ModelConfig:
    """EVA2-CLIP-E, gated adapter with two learned ends, Vicuna-7B v1.5 with an expert in each layer."""
    lane = LaneConfig(
        # Learned positions are of 224 pixels.
        encoder=Eva2Config(image_size_px=size_px, weights=EVA2_CLIP_E if size_px == 224 else ()),
        projector=GluConfig(ends=True),
        resolution=FixedResolution(fit="stretch"),
    )
    return ModelConfig(
        lanes={"image": lane},
        # The positions are those of the authors' config, half of Vicuna's own.
        backbone=llama("7b", "lmsys/vicuna-7b-v1.5", rms_norm_eps=1e-5),
        fusion=VisualExpertConfig(),
        template="cogvlm",
        boxes="cogvlm",
    )


def cogagent_model() -> ModelConfig:
    """CogAgent (arXiv:2312.08914): a second, finer tower; both have a second table of positions, behind
    their last block."""
    model = cogvlm_model(224)
    lane = model.lanes["image"].to_dict() | {
        "encoder": Eva2Config(positions_behind=True).to_dict(),
        "detail": Eva2Config.large(1120, positions_behind=True).to_dict(),
    }
    lanes = {"image": LaneConfig.from_dict(lane)}
    return model.model_copy(update={"lanes": lanes, "fusion": VisualExpertDetailConfig()})


def cogvlm_stage(
    name: str, rates: dict[str, float], warmup_steps: int = 0, decay: float = 0.05, **changes: Any
) -> StageConfig:
    """A stage; of its parts each learns at its own rate.

    Args:
        rates: part -> learning rate.
        decay: of weights.
        changes: what else the stage sets.
    """
    return StageConfig(
        name=name,
        learns=tuple(Learn(part=part, lr=lr, weight_decay=decay) for part, lr in rates.items()),
        schedule=ScheduleConfig(warmup_steps=warmup_steps),
        betas=(0.9, 0.95),
        max_length=2048,
        precision="bf16",
        **changes,
    )

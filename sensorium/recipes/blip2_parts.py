"""What BLIP-2, InstructBLIP and MiniGPT-4 share: eyes, and how LAVIS trains.

Sources: github.com/salesforce/LAVIS, models/blip2_models/; github.com/Vision-CAIR/MiniGPT-4,
runners/runner_base.py, which is LAVIS'.
"""

from __future__ import annotations

from typing import Any

from sensorium.core.weights import FileSource as WeightFile
from sensorium.core.weights import HubSource, WeightSource
from sensorium.data.config import FileSource
from sensorium.encoders.blip2_vit import Blip2VitConfig
from sensorium.input_projectors.qformer import QFormerConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig
from sensorium.model.learning import Learn
from sensorium.training.config import ScheduleConfig, StageConfig
from sensorium.training.objectives.base import ObjectiveConfig

# The file that LAVIS' repository fetches (models/eva_vit.py), put there by hand.
EVA_VIT_G = (WeightFile(path="weights/eva_vit_g.pth", format="eva_vit_g"),)
# Whose words a Q-Former reads.
BERT = (HubSource(id="google-bert/bert-base-uncased"),)


def blip2_lane(weights: tuple[WeightSource, ...] = (), **changes: Any) -> LaneConfig:
    """EVA-CLIP-g at 224 pixels and a Q-Former of 32 queries.

    Args:
        weights: the tower's, where it does not come with a model that training starts from.
        changes: other values of the Q-Former.
    """
    return LaneConfig(
        encoder=Blip2VitConfig(weights=weights),
        projector=QFormerConfig(**changes),
        resolution=FixedResolution(fit="stretch"),
    )


def lavis_stage(
    name: str,
    objective: ObjectiveConfig,
    data: tuple[FileSource, ...],
    learns: tuple[Learn, ...],
    **changes: Any,
) -> StageConfig:
    """A stage of so many steps; cosine after a warm-up.

    Args:
        changes: `warmup_steps` and `final_ratio` of the schedule, and what else the stage sets.
    """
    schedule = ScheduleConfig(
        warmup_steps=changes.pop("warmup_steps"), final_ratio=changes.pop("final_ratio")
    )
    settings: dict[str, Any] = {"betas": (0.9, 0.999), "schedule": schedule}
    return StageConfig(
        name=name, objective=objective, data=data, learns=learns, **(settings | changes)
    )

"""NExT-GPT's eye, tokens and ways out.

Source: github.com/NExT-GPT/NExT-GPT, NExT-GPT-Lagacy/code/config/base.yaml and code/model/anyToImageVideoAudio.py, whose order of
added tokens this is.
"""

from __future__ import annotations

from sensorium.core.hands import MadeKind
from sensorium.core.weights import FileSource as WeightFile
from sensorium.core.weights import HubSource
from sensorium.encoders.imagebind import ImageBindConfig
from sensorium.generators.audioldm import AudioLdmConfig
from sensorium.generators.text_to_video import TextToVideoConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import Learn
from sensorium.output_projectors.mapper import MapperConfig
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.published_parts import SD_15
from sensorium.training.config import ScheduleConfig, StageConfig
from sensorium.training.objectives.base import ObjectiveConfig

IMG, VID, AUD = (tuple(f"[{name}{i}]" for i in range(count)) for name, count in (("IMG", 4), ("VID", 24), ("AUD", 8)))
ADDED = ("<Img>", "</Img>", *IMG, "<Vid>", "</Vid>", *VID, "<Aud>", "</Aud>", *AUD)
EMBEDDINGS = ("lm.model.embed_tokens", "lm.lm_head")
HANDS: dict[MadeKind, HandConfig] = {
    "image": HandConfig(signals=IMG, projector=MapperConfig(), generator=SD_15),
    "video": HandConfig(signals=VID, projector=MapperConfig(), generator=TextToVideoConfig(weights=(HubSource(id="cerspense/zeroscope_v2_576w"),))),
    "audio": HandConfig(signals=AUD, projector=MapperConfig(), generator=AudioLdmConfig(weights=(HubSource(id="cvssp/audioldm-l-full"),))),
}


def imagebind_lane() -> LaneConfig:
    """ImageBind's pooled vector as one token; its file is put there by hand."""
    weights = (WeightFile(path="weights/imagebind_huge.pth", format="imagebind"),)
    return LaneConfig(encoder=ImageBindConfig(weights=weights), projector=LinearConfig(), resolution=FixedResolution(fit="crop"))


def rows(lr: float) -> tuple[Learn, ...]:
    """The added tokens, which are the last, in both of LLaMA's matrices."""
    return tuple(Learn(part="backbone", module=name, rows=tuple(range(-len(ADDED), 0)), lr=lr) for name in EMBEDDINGS)


def next_stage(name: str, objective: ObjectiveConfig, sets: tuple[str, ...], lr: float, *parts: str) -> StageConfig:
    """One epoch over sets, two rows at a time, the rate rising over a tenth of it and falling to nothing."""
    learns = tuple(Learn(part=part, lr=lr, weight_decay=1e-3) for part in parts)
    return StageConfig(name=name, objective=objective, data=mixed(dict.fromkeys(sets), "samples"), learns=learns, epochs=1, batch_size=2,
                       betas=(0.9, 0.95), max_length=512, schedule=ScheduleConfig(shape="linear", warmup_ratio=0.1, final_ratio=0.0))  # fmt: skip

"""NExT-GPT's eye and ear, tokens and ways out, and how words learn that were added.

Source: github.com/NExT-GPT/NExT-GPT, NExT-GPT-Lagacy/code/config/base.yaml and code/model/anyToImageVideoAudio.py, whose order of
added tokens this is.
"""

from __future__ import annotations

from typing import Literal

from sensorium.core.clips import FrameClips
from sensorium.core.hands import GeneratorConfig, MadeKind
from sensorium.core.parts import InputProjectorConfig
from sensorium.core.weights import FileSource as WeightFile
from sensorium.core.weights import HubSource
from sensorium.encoders.imagebind import ImageBindConfig
from sensorium.encoders.imagebind_sound import SoundConfig
from sensorium.generators.audioldm import AudioLdmConfig
from sensorium.generators.stable_diffusion import StableDiffusionConfig
from sensorium.generators.text_to_video import TextToVideoConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import Learn
from sensorium.output_projectors.mapper import MapperConfig
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.published_parts import SD_15
from sensorium.training.config import ScheduleConfig, StageConfig
from sensorium.training.objectives.base import ObjectiveConfig
from sensorium.training.objectives.denoise import (
    DenoiseConfig,
    PictureNoise,
    SoundNoise,
    VideoNoise,
)

IMG, VID, AUD = (tuple(f"[{name}{i}]" for i in range(count)) for name, count in (("IMG", 4), ("VID", 24), ("AUD", 8)))
ADDED = ("<Img>", "</Img>", *IMG, "<Vid>", "</Vid>", *VID, "<Aud>", "</Aud>", *AUD)
EMBEDDINGS = ("lm.model.embed_tokens", "lm.lm_head")
HANDS: dict[MadeKind, HandConfig] = {
    "image": HandConfig(signals=IMG, projector=MapperConfig(), generator=SD_15),
    "video": HandConfig(signals=VID, projector=MapperConfig(), generator=TextToVideoConfig(weights=(HubSource(id="cerspense/zeroscope_v2_576w"),))),
    "audio": HandConfig(signals=AUD, projector=MapperConfig(), generator=AudioLdmConfig(weights=(HubSource(id="cvssp/audioldm-l-full"),))),
}
WORDS_15 = tuple(f"<{name}_{i:02d}>" for name, count in (("image", 4), ("video", 24), ("audio", 8)) for i in range(count))
"""Of version 1.5: nextgpt/model/nextgpt_arch.py, `initialize_vision_tokenizer`."""


def _hand_15(kind: MadeKind, generator: GeneratorConfig) -> HandConfig:
    """Its mapper reads the spaces between the tokens, too, and its queries begin at zero."""
    signals = " ▁ ".join(token for token in WORDS_15 if token.startswith(f"<{kind}_")).split(" ")
    return HandConfig(signals=tuple(signals), projector=MapperConfig(query_std=0.0), generator=generator)


HANDS_15: dict[MadeKind, HandConfig] = {
    "image": _hand_15("image", StableDiffusionConfig(width=1024, weights=(HubSource(id="stabilityai/stable-diffusion-2"),))),
    "video": _hand_15("video", TextToVideoConfig(weights=(HubSource(id="cerspense/zeroscope_v2_XL"),))),
    "audio": _hand_15("audio", AudioLdmConfig(weights=(HubSource(id="cvssp/audioldm"),))),
}
NOISE_15 = DenoiseConfig(image=PictureNoise(size_px=224, gamma=5.0), video=VideoNoise(), audio=SoundNoise())
"""Sizes are training_utils.py's."""


def imagebind_lane(projector: InputProjectorConfig, fit: Literal["middle", "letterbox"]) -> LaneConfig:
    """ImageBind's pooled vector of pictures, videos and sound, and what makes tokens of them all; its file is put there by hand."""
    weights = (WeightFile(path="weights/imagebind_huge.pth", format="imagebind"),)
    encoder = ImageBindConfig(weights=weights, video=FrameClips(), audio=SoundConfig())
    return LaneConfig(encoder=encoder, projector=projector, resolution=FixedResolution(fit=fit))


def rows(lr: float, added: int = len(ADDED)) -> tuple[Learn, ...]:
    """The added tokens, which are the last, in both of LLaMA's matrices."""
    return tuple(Learn(part="backbone", module=name, rows=tuple(range(-added, 0)), lr=lr) for name in EMBEDDINGS)


def next_stage(name: str, objective: ObjectiveConfig, sets: tuple[str, ...], lr: float, *parts: str) -> StageConfig:
    """One epoch over sets, two rows at a time, the rate rising over a tenth of it and falling to nothing."""
    learns = tuple(Learn(part=part, lr=lr, weight_decay=1e-3) for part in parts)
    return StageConfig(name=name, objective=objective, data=mixed(dict.fromkeys(sets), "samples"), learns=learns, epochs=1, batch_size=2,
                       betas=(0.9, 0.95), max_length=512, schedule=ScheduleConfig(shape="linear", warmup_ratio=0.1, final_ratio=0.0))  # fmt: skip

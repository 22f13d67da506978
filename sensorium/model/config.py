"""The config of a whole model: which encoder, projector, LLM, and how they meet."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SerializeAsAny

from sensorium.backbones import BACKBONES
from sensorium.core.batch import Grid
from sensorium.core.config import Config, kinds
from sensorium.core.errors import ConfigError
from sensorium.core.parts import (
    BackboneConfig,
    EncoderConfig,
    FusionConfig,
    InputProjectorConfig,
    ResolutionConfig,
)
from sensorium.encoders import ENCODERS
from sensorium.fusion import FUSIONS
from sensorium.fusion.splice import SpliceConfig
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.media import RESOLUTIONS
from sensorium.media.resolution import FixedResolution
from sensorium.model.lookup import LookupConfig
from sensorium.text.chat import TemplateName

AnyEncoder = Annotated[SerializeAsAny[EncoderConfig], kinds(ENCODERS, EncoderConfig)]
AnyProjector = Annotated[SerializeAsAny[InputProjectorConfig], kinds(INPUT_PROJECTORS, InputProjectorConfig)]
AnyBackbone = Annotated[SerializeAsAny[BackboneConfig], kinds(BACKBONES, BackboneConfig)]
AnyFusion = Annotated[SerializeAsAny[FusionConfig], kinds(FUSIONS, FusionConfig)]
AnyResolution = Annotated[SerializeAsAny[ResolutionConfig], kinds(RESOLUTIONS, ResolutionConfig)]


class LaneConfig(Config):
    """One modality's way into the LLM."""

    encoder: AnyEncoder
    projector: AnyProjector
    resolution: AnyResolution = FixedResolution()
    lookup: LookupConfig | None = None
    """Turn tokens into averages of word embeddings."""

    def tile_grid(self) -> Grid:
        """Tokens of one encoder input after the projector and the lookup."""
        projected = self.projector.out_grid(self.encoder.grid())
        return self.lookup.out_grid(projected) if self.lookup else projected


class LoraConfig(Config):
    """A low-rank adapter on the LLM's linear layers (arXiv:2106.09685), through peft."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )


class ModelConfig(Config):
    """A multimodal LLM."""

    lanes: dict[str, LaneConfig] = Field(default_factory=dict)
    """Media kind -> its lane."""
    backbone: AnyBackbone
    fusion: AnyFusion = SpliceConfig()
    adapter: LoraConfig | None = None
    template: TemplateName = "auto"
    image_markers: tuple[str, ...] = ()
    """Tokens written where a medium stands when features enter inside layers."""
    placeholder_token: str | None = None
    """Vocabulary entry used as placeholder id; None: the padding id. Only its position
    matters, features replace it."""

    def lane(self, kind: str) -> LaneConfig:
        """The lane of a media kind.

        Raises:
            ConfigError: this model has none.
        """
        if kind not in self.lanes:
            known = ", ".join(sorted(self.lanes)) or "text only"
            raise ConfigError(f"this model does not take {kind}", expected=known)
        return self.lanes[kind]

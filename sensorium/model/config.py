"""The config of a whole model: which encoder, projector, LLM, and how they meet."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny, model_validator

from sensorium.backbones import BACKBONES
from sensorium.backbones.adaption_prompt import GateName
from sensorium.core.batch import Grid
from sensorium.core.config import Config, kinds
from sensorium.core.errors import ConfigError
from sensorium.core.hands import MadeKind
from sensorium.core.naming import of_other
from sensorium.core.parts import (
    BackboneConfig,
    EncoderConfig,
    FusionConfig,
    InputProjectorConfig,
    PartConfig,
    ResolutionConfig,
    TextFrame,
)
from sensorium.core.tables import NameTable
from sensorium.core.video import VideoConfig
from sensorium.encoders import ENCODERS
from sensorium.fusion import FUSIONS
from sensorium.fusion.splice import SpliceConfig
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.media import RESOLUTIONS
from sensorium.media.resolution import FixedResolution
from sensorium.model.hand import HandConfig, Way
from sensorium.model.lookup import LookupConfig
from sensorium.model.picture_words import PictureWordsConfig
from sensorium.model.places import PlacesConfig
from sensorium.text.boxes import BoxFormatName
from sensorium.text.chat import TemplateName

AnyEncoder = Annotated[SerializeAsAny[EncoderConfig], kinds(ENCODERS, EncoderConfig)]
AnyProjector = Annotated[SerializeAsAny[InputProjectorConfig], kinds(INPUT_PROJECTORS, InputProjectorConfig)]
AnyBackbone = Annotated[SerializeAsAny[BackboneConfig], kinds(BACKBONES, BackboneConfig)]
AnyFusion = Annotated[SerializeAsAny[FusionConfig], kinds(FUSIONS, FusionConfig)]
AnyResolution = Annotated[SerializeAsAny[ResolutionConfig], kinds(RESOLUTIONS, ResolutionConfig)]


class AdapterConfig(PartConfig):
    """A small part that learns inside a frozen LLM; `model/adapter.py` says what becomes of it."""


class LoraConfig(AdapterConfig):
    """A low-rank adapter on linear layers (arXiv:2106.09685), through peft."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=16, ge=1)
    alpha: float = 32.0
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Patterns over the names of linear layers (`core/patterns.py`): `q_proj`, `layers.[8-15].mlp`, `*` for
    all but the scores over the vocabulary. Of the default's names a model may lack some."""
    dora: bool = False
    """The length of each output's weights learns apart from their direction (DoRA, arXiv:2402.09353)."""
    rslora: bool = False
    """Divide by the root of the rank, not by the rank (arXiv:2312.03732)."""

    @property
    def scale(self) -> float:
        """Factor on the low-rank product."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)

    @classmethod
    def tiny(cls) -> LoraConfig:
        return cls(rank=2, alpha=4.0)


class LaneConfig(Config):
    """One modality's way into the LLM."""

    encoder: AnyEncoder
    projector: AnyProjector
    resolution: AnyResolution = FixedResolution()
    lookup: LookupConfig | None = None
    """Turn tokens into averages of word embeddings."""
    places: PlacesConfig | None = None
    """Tell things and where they are in words and numbers, in front of all other tokens; the part `places.KIND`.
    Needs a lookup, whose words it uses."""
    detail: AnyEncoder | None = None
    """A second encoder of the same picture, whose features enter inside the LLM's layers."""
    adapter: LoraConfig | None = None
    """A low-rank adapter on the encoder, the part `adapters.KIND`."""
    fast_decode: bool = False
    """Decode JPEG files at a half, a quarter or an eighth of their size where that is still as large as what the encoder
    sees. Its pixels then differ a little from those of the published processors; sizes, boxes and tokens do not.
    Pictures that are augmented are decoded whole."""

    @model_validator(mode="after")
    def _patches_fit(self) -> LaneConfig:
        wanted = getattr(self.resolution, "patch_px", None)
        if wanted is not None and wanted != self.encoder.native_patch_px:
            takes = self.encoder.native_patch_px or "no patches, but pictures of one size"
            raise ValueError(
                f"resolution {self.resolution.kind} with patches of {wanted} px for an encoder of "
                f"kind {self.encoder.kind}, which takes {takes}; nearest: "
                + (f"patch_px {self.encoder.native_patch_px}" if self.encoder.native_patch_px else
                   f"resolution {{kind: fixed}}, or an encoder of kind {', '.join(_native_encoders())}")
            )
        return self

    @model_validator(mode="after")
    def _places_have_words(self) -> LaneConfig:
        if self.places is not None and self.lookup is None:
            raise ValueError("places without lookup, whose words they are told in; set lookup or leave places out")
        return self

    @model_validator(mode="after")
    def _reads_one_way(self) -> LaneConfig:
        if self.looks_for_words and self.projector.vocabulary is not None:
            raise ValueError(f"places.asked with projector {self.projector.kind}, which reads the question itself; set places.asked: 0")
        return self

    @property
    def looks_for_words(self) -> bool:
        """Whether words of a question are told of the things that they fit."""
        return self.places is not None and self.places.asked > 0

    @model_validator(mode="after")
    def _can_glance(self) -> LaneConfig:
        if self.places is None or not self.places.glance:
            return self
        found = f"projector {self.projector.kind} without summary" if not getattr(self.projector, "summary", False) else ""
        if self.encoder.native_patch_px is not None:
            found = f"an encoder of kind {self.encoder.kind}, which takes patches"
        if found:
            raise ValueError(
                f"places.glance with {found}; expected a projector that sums whole pictures up and an encoder that takes "
                "pictures of one size; set projector: {kind: avg_pool, summary: true}, or places.glance: false"
            )
        return self

    def tile_grid(self, patches: Grid | None = None) -> Grid:
        """Tokens of one encoder input after the projector and the lookup.

        Args:
            patches: the layout of a picture that goes in at a size of its own.
        """
        projected = self.projector.out_grid(patches or self.encoder.grid())
        looked_up = self.lookup.out_grid(projected) if self.lookup else projected
        return self.places.out_grid(looked_up) if self.places else looked_up


def _native_encoders() -> list[str]:
    """Those that take pictures of any size."""
    plain = EncoderConfig.native_patch_px
    return [name for name in ENCODERS if ENCODERS.find(name).native_patch_px is not plain]


class BiasNormConfig(AdapterConfig):
    """Biases and norms of the LLM learn (BitFit, arXiv:2106.10199); the layers that get a bias are
    LLaMA-Adapter V2's (arXiv:2304.15010, llama_adapter_v2_multimodal7b)."""

    kind: Literal["bias_norm"] = "bias_norm"
    added: tuple[str, ...] = ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Linear layers that get a bias, zero at first, where they have none; all biases learn."""
    norms: bool = True

    @classmethod
    def tiny(cls) -> BiasNormConfig:
        return cls()


class AdaptionPromptConfig(AdapterConfig):
    """Learned vectors that the LLM's last layers attend to (LLaMA-Adapter, arXiv:2303.16199).
    The sizes are the paper's."""

    kind: Literal["adaption_prompt"] = "adaption_prompt"
    layers: int = Field(default=30, ge=1)
    """How many of the last layers have a prompt."""
    length: int = Field(default=10, ge=1)
    """Vectors in each prompt."""
    gate: GateName = "layer"
    """`layer`: one number a layer, as peft has it; `heads`: the tanh of one number a head, as in
    the authors' repository."""
    tuning: BiasNormConfig | None = None
    """Biases and norms beside the prompts, as a part `tuning` of their own."""

    @classmethod
    def tiny(cls) -> AdaptionPromptConfig:
        return cls(layers=1, length=3)


class PrefixConfig(AdapterConfig):
    """Learned keys and values that every layer of the LLM attends to (prefix tuning, arXiv:2101.00190)."""

    kind: Literal["prefix"] = "prefix"
    length: int = Field(default=20, ge=1)
    """Vectors in front of every row; they take places of the LLM's longest row."""
    hidden: int | None = Field(default=None, ge=1)
    """Width of the layers that the vectors come from; None: they learn themselves."""

    @classmethod
    def tiny(cls) -> PrefixConfig:
        return cls(length=3)


ADAPTERS = NameTable(
    "adapter",
    {
        "lora": "sensorium.model.config:LoraConfig",
        "adaption_prompt": "sensorium.model.config:AdaptionPromptConfig",
        "bias_norm": "sensorium.model.config:BiasNormConfig",
        "prefix": "sensorium.model.config:PrefixConfig",
    },
)
# Configs from before there were kinds name none.
AnyAdapter = Annotated[
    SerializeAsAny[AdapterConfig] | None, kinds(ADAPTERS, AdapterConfig, default="lora")
]


class ModelConfig(Config):
    """A multimodal LLM."""

    lanes: dict[str, LaneConfig] = Field(default_factory=dict)
    """Media kind -> its lane."""
    backbone: AnyBackbone
    hands: dict[MadeKind, HandConfig] = Field(default_factory=dict)
    """Kind of medium that the model makes -> how."""
    picture_words: PictureWordsConfig | None = None
    """How the LLM reads and writes pictures as tokens; None: it does not."""
    video: VideoConfig | None = None
    """How videos become pictures; None: the model takes none."""
    fusion: AnyFusion = SpliceConfig()
    adapter: AnyAdapter = None
    template: TemplateName = "auto"
    written: tuple[int, ...] = ()
    """Tokens, by their rows in the vocabulary, whose scores have a row of their own added to them (`model/written.py`, part `written`)."""
    boxes: BoxFormatName | None = None
    """How boxes and points of a Sample are written into its text; None: the model takes none."""
    image_markers: tuple[str, ...] = ()
    """Tokens written where a medium stands when features enter inside layers."""
    placeholder_token: str | None = None
    """Vocabulary entry used as placeholder id; None: the padding id. Only its position
    matters, features replace it."""

    @model_validator(mode="after")
    def _sees_frames(self) -> ModelConfig:
        if self.video is not None and "image" not in self.lanes and (self.picture_words is None or not self.picture_words.shared):
            raise ValueError("video, whose frames are pictures, for a model that reads no pictures; give it a lane `image`, or leave video out")
        return self

    @property
    def ways(self) -> dict[str, Way]:
        """How media are made, by the name of each way: a kind of medium, or that of its second way."""
        found: dict[str, Way] = {}
        for kind, hand in self.hands.items():
            for name, way in ((kind, hand), (of_other(kind), hand.other)):
                if way is not None and way.projector is not None:
                    found[name] = Way(kind, hand.signals, way.projector, way.generator)
        return found

    @property
    def tuning(self) -> BiasNormConfig | None:
        """Which biases and norms of the LLM learn by themselves, if any."""
        if isinstance(self.adapter, AdaptionPromptConfig):
            return self.adapter.tuning
        return self.adapter if isinstance(self.adapter, BiasNormConfig) else None

    @property
    def low_rank(self) -> dict[str, LoraConfig]:
        """Low-rank adapters, by the prefix of what they stand in: `backbone.`, `encoders.image.`."""
        found = {f"encoders.{kind}.": lane.adapter for kind, lane in self.lanes.items() if lane.adapter}
        return found | ({"backbone.": self.adapter} if isinstance(self.adapter, LoraConfig) else {})

    @property
    def longest_row(self) -> int:
        """Tokens that a row may have: the LLM's positions, without those of a prefix."""
        taken = self.adapter.length if isinstance(self.adapter, PrefixConfig) else 0
        return self.backbone.max_positions - taken

    @property
    def text_frame(self) -> TextFrame | None:
        """How texts enter a text tower; None: the model writes text."""
        return self.backbone.text_frame

    @property
    def takes(self) -> dict[str, str]:
        """Kind of media -> the name of the lane that it goes through: one lane may take several, by the same encoder and projector."""
        clips = {kind: name for name, lane in self.lanes.items() for kind in lane.encoder.clips()}
        return {name: name for name in self.lanes} | clips

    def lane_of(self, kind: str) -> str:
        """The name of the lane that a kind of media goes through.

        Raises:
            ConfigError: this model has none.
        """
        if kind not in self.takes:
            raise ConfigError(f"this model does not take {kind}", expected=", ".join(sorted(self.takes)) or "text only")
        return self.takes[kind]

    def lane(self, kind: str) -> LaneConfig:
        """The lane that a kind of media goes through; as `lane_of`."""
        return self.lanes[self.lane_of(kind)]

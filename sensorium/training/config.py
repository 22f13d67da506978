"""Stages and recipes: the config of a whole training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from sensorium.core.config import Config, kinds
from sensorium.core.naming import did_you_mean, of_choice, of_detail
from sensorium.data.config import AnySource
from sensorium.model.config import ModelConfig
from sensorium.model.learning import Learn
from sensorium.training.objectives import OBJECTIVES
from sensorium.training.objectives.base import ObjectiveConfig
from sensorium.training.spikes import SpikeConfig

LANE_PARTS = ("encoders", "projectors", "lookups", "places", "newlines")
AnyObjective = Annotated[SerializeAsAny[ObjectiveConfig], kinds(OBJECTIVES, ObjectiveConfig)]


def _on_off(value: Any) -> Any:
    """YAML 1.1 reads `on` and `off` without quotes as true and false."""
    return ("on" if value else "off") if isinstance(value, bool) else value


OptimiserName = Literal["adamw", "adafactor"]
Recompute = Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_off)]
Shard = Literal["none", "full"]


class ScheduleConfig(Config):
    """Learning rate over the stage: linear warm-up, then constant, falling, or cosine; `geometric`: by one factor
    every step; `stairs`: by `final_ratio` after each `every` steps."""

    shape: Literal["cosine", "linear", "constant", "geometric", "stairs"] = "cosine"
    warmup_steps: int = 0
    warmup_ratio: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the stage's steps; give this or `warmup_steps`."""
    final_ratio: float = 0.1
    """Of the peak, at the last step of what falls; of `stairs`, of each to the one before."""
    every: int | None = Field(default=None, ge=1)
    """Steps of one of the `stairs`."""

    @model_validator(mode="after")
    def _stairs_have_a_length(self) -> ScheduleConfig:
        if (self.shape == "stairs") != (self.every is not None):
            raise ValueError("a schedule has `every` where its shape is stairs, and nowhere else")
        return self

    @model_validator(mode="after")
    def _one_warmup(self) -> ScheduleConfig:
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("a schedule takes either warmup_steps or warmup_ratio")
        return self


class StageConfig(Config):
    """One stage: what learns, from which data, by which objective."""

    name: str
    objective: AnyObjective
    data: tuple[AnySource, ...] = Field(min_length=1)
    learns: tuple[Learn, ...] = Field(min_length=1)
    steps: int | None = None
    epochs: float | None = None
    """Passes over the data; give this or `steps`."""
    batch_size: int = Field(default=16, ge=1)
    accumulate: int = Field(default=1, ge=1)
    max_length: int = Field(default=512, ge=8)
    picture_px: int | None = Field(default=None, ge=1)
    """Side of the pictures in this stage; None: the model's own."""
    pack: bool = False
    max_pictures_per_row: int | None = Field(default=None, ge=1)
    """Of packed rows; None: as many as fit."""
    token_budget: int | None = Field(default=None, ge=8)
    """Without packing: samples of like length make a batch, as many as have so many tokens, padding
    included, whatever `batch_size` says."""
    loss_per: Literal["token", "sample", "question"] = "token"
    """`sample`: every conversation weighs the same, however many tokens of it are learned. `question`: the sum
    over its tokens, of several answers each times its weight, is divided by the number of conversations (BLIP's VQA)."""
    schedule: ScheduleConfig = ScheduleConfig()
    optimiser: OptimiserName = "adamw"
    """`adafactor`: without momentum, and with sums of rows and columns in place of second moments; its
    rate is a share of each matrix's own size (arXiv:1804.04235)."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's."""
    epsilon: float = Field(default=1e-8, gt=0.0)
    """AdamW's."""
    clip_norm: float = 1.0
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of what attention and feed-forward part of each learning layer of the LLM add that is set to zero (`model/dropping.py`)."""
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    """`auto`: bf16 where this machine multiplies faster in it, else fp32. `bf16` on a processor that does not: fp32, with a warning."""
    keep_precision: bool = False
    """Compute in the asked `precision` even on a processor that is not faster in it."""
    recompute: Recompute = "auto"
    """Whether the LLM's layers run again in the backward pass instead of keeping their activations; `auto`: where
    even single rows do not fit into memory otherwise."""
    compile: bool = False
    """Run the norms and feed-forward parts of the LLM's layers as compiled kernels. The first step takes half a minute longer; whether
    later ones are shorter is to be tried on the machine (`docs/log.md`: not on one processor). Sums are taken in another order, which
    moves last digits."""
    record: bool = False
    """On a GPU, record the LLM's layers over packed rows once and play them (a CUDA graph): a small model's thousands of short kernels then wait
    for nobody to start them. Tried on one H100 (`docs/speed.md`); memory for a step is held for good."""
    cache_features: bool = False
    """Keep a frozen encoder's outputs on disk, so that later epochs, stages, runs and evaluations skip it."""
    feature_store_gb: float = Field(default=16.0, gt=0)
    """Most that the store of all runs may hold: what is longest unused goes, then no more is written."""
    feature_format: Literal["exact", "half"] = "exact"
    """`exact`: as the encoder computed them; `half`: rounded to fp16, on the first use too."""
    checkpoint_every: int = Field(default=200, ge=1)
    workers: int = Field(default=2, ge=0)
    """Threads that read data, before a GPU processes; 0: none of their own."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    spikes: SpikeConfig | None = None
    """What to do where the loss jumps; None: nothing."""
    seed: int = 0

    @model_validator(mode="after")
    def _one_length(self) -> StageConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"stage {self.name!r} needs either steps or epochs")
        return self

    @model_validator(mode="after")
    def _has_precision_to_keep(self) -> StageConfig:
        if self.keep_precision and self.precision == "auto":
            raise ValueError(f"stage {self.name!r}: keep_precision is for precision: bf16 or fp32; auto asks for neither")
        return self

    @model_validator(mode="after")
    def _fits_packing(self) -> StageConfig:
        if self.pack and self.token_budget is not None:
            raise ValueError(f"stage {self.name!r}: token_budget is for pack: false; packed rows have max_length")
        if self.record and not self.pack:
            raise ValueError(f"stage {self.name!r}: record is for packed rows, which are all of one length; set pack: true")
        if not self.pack and self.max_pictures_per_row is not None:
            raise ValueError(f"stage {self.name!r}: max_pictures_per_row is for pack: true")
        if self.token_budget is not None and self.token_budget < self.max_length:
            raise ValueError(f"stage {self.name!r}: token_budget {self.token_budget} is below max_length {self.max_length}")
        return self


class Published(Config):
    """Where a system was published, and how far a recipe reproduces it."""

    paper: str
    """Its arXiv id."""
    oracle: str | None = None
    """The class of transformers that computes the same function; None: there is none."""
    recorded: str | None = None
    """The package whose numbers were written down once and are compared with, where it cannot run beside us."""
    second: str | None = None
    """What else it is compared with: the authors' code as a test writes it a second time, or parts of transformers put together there."""
    missing: tuple[str, ...] = ()
    """Steps of the original's training that cannot be done here yet."""
    differs: tuple[str, ...] = ()
    """Details that are done otherwise here, and values that are quoted from memory."""
    unknown: tuple[str, ...] = ()
    """What nobody has published of a system for which this one stands in."""


class Recipe(Config):
    """A system: its model and the stages that train it."""

    name: str
    description: str = ""
    """Of a published system: inputs→outputs, a colon, and one phrase."""
    published: Published | None = None
    """None: a system of our own."""
    model: ModelConfig
    start: str | None = None
    """A trained model to start from: a shipped name, a model or run folder, or a hub id. Parts
    that it has in the same form are taken; a projector also before an LLM of another width, with
    a new map into it."""
    stages: tuple[StageConfig, ...] = ()
    seed: int = 0
    keep_checkpoints: int = Field(default=2, ge=1)
    """The last ones of a run; where the newest is damaged, the one before takes its place."""
    shard: Shard = "none"
    """`full`: several processes divide the LLM's weights, gradients and moments among them, and those of encoders that
    learn (`training/distributed/sharding.py`); a run may go on with the other one."""

    @model_validator(mode="after")
    def _distinct_names(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"two stages share a name: {names}")
        return self

    @model_validator(mode="after")
    def _known_parts(self) -> Recipe:
        """A misspelt part is found before weights are fetched for it."""
        kinds_of = [f"{head}.{kind}" for kind in self.model.lanes for head in LANE_PARTS]
        details = [f"encoders.{of_detail(kind)}" for kind, lane in self.model.lanes.items() if lane.detail]
        adapters = [f"adapters.{kind}" for kind, lane in self.model.lanes.items() if lane.adapter]
        hands = [f"hands.{name}" for name in self.model.ways]
        hands += [f"hands.{of_choice(kind)}" for kind, hand in self.model.hands.items() if hand.choice]
        known = ["backbone", "adapter", "tuning", "fusion", "objective", *kinds_of, *details, *adapters, *hands]
        told = self.model.picture_words
        known += ["code_tables"] if told and told.tables else []
        known += ["written"] if self.model.written else []
        for stage in self.stages:
            for learn in stage.learns:
                if told and learn.part == "picture_tokenizer":
                    raise ValueError(f"stage {stage.name!r}: a picture tokenizer gets no gradient from the LLM; "
                                     "`sensorium tokenizer train` teaches one")  # fmt: skip
                if learn.part not in known:
                    raise ValueError(f"stage {stage.name!r}: no part {learn.part!r} to train; {did_you_mean(learn.part, known)}")
        return self

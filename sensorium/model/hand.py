"""One modality's way out of the LLM: the tokens that stand for a medium, what reads them, and what makes it.

Source of the design: GILL (arXiv:2305.17216), NExT-GPT (arXiv:2309.05519).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, SerializeAsAny, model_validator
from torch import nn

from sensorium.core.config import Config, kinds
from sensorium.core.hands import GeneratorConfig, MadeKind, OutputProjectorConfig
from sensorium.generators import GENERATORS
from sensorium.model.choice import ChoiceConfig
from sensorium.output_projectors import OUTPUT_PROJECTORS

AnyGenerator = Annotated[SerializeAsAny[GeneratorConfig], kinds(GENERATORS, GeneratorConfig)]
AnyOutputProjector = Annotated[SerializeAsAny[OutputProjectorConfig], kinds(OUTPUT_PROJECTORS, OutputProjectorConfig)]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to make a kind of medium."""

    kind: MadeKind
    signals: tuple[str, ...]
    projector: OutputProjectorConfig
    generator: GeneratorConfig

    def build(self, d_model: int) -> nn.Module:
        """The output projector.

        Raises:
            ConfigError: it cannot make what the generator wants of so many tokens.
        """
        return self.projector.build(d_model, len(self.signals), self.generator.condition)


class WayConfig(Config):
    """What reads the states of signal tokens, and what makes a medium of it."""

    projector: AnyOutputProjector
    generator: AnyGenerator


class HandConfig(WayConfig):
    """Signal tokens -> output projector -> generator."""

    signals: tuple[str, ...] = Field(min_length=1)
    """Control tokens that the LLM writes where a medium is to stand, in this order; they are among the backbone's
    `added_tokens`, or in its tokenizer already."""
    other: WayConfig | None = None
    """A second way to the same medium by the same tokens, the part `hands.KIND_other` (GILL draws pictures, or finds them)."""
    choice: ChoiceConfig | None = None
    """What decides between both, the part `hands.KIND_choice`; None: the first way is taken."""

    @model_validator(mode="after")
    def _chooses_between_two(self) -> HandConfig:
        if self.choice is not None and self.other is None:
            raise ValueError("choice without other: there is nothing to choose")
        if self.other is not None and self.other.generator.makes != self.generator.makes:
            raise ValueError(f"other makes {self.other.generator.makes}, the first way {self.generator.makes}")
        return self

    @model_validator(mode="after")
    def _distinct(self) -> HandConfig:
        if len(set(self.signals)) < len(self.signals):
            raise ValueError(f"signals {list(self.signals)} name a token twice")
        return self

"""One modality's way out of the LLM: the tokens that stand for a medium, what reads them, and what makes it.

Source of the design: GILL (arXiv:2305.17216), NExT-GPT (arXiv:2309.05519).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SerializeAsAny, model_validator
from torch import nn

from sensorium.core.config import Config, kinds
from sensorium.core.hands import GeneratorConfig, OutputProjectorConfig
from sensorium.generators import GENERATORS
from sensorium.output_projectors import OUTPUT_PROJECTORS

AnyGenerator = Annotated[SerializeAsAny[GeneratorConfig], kinds(GENERATORS, GeneratorConfig)]
AnyOutputProjector = Annotated[SerializeAsAny[OutputProjectorConfig], kinds(OUTPUT_PROJECTORS, OutputProjectorConfig)]


class HandConfig(Config):
    """Signal tokens -> output projector -> generator."""

    signals: tuple[str, ...] = Field(min_length=1)
    """Control tokens that the LLM writes where a medium is to stand, in this order; they are among the backbone's
    `added_tokens`, or in its tokenizer already."""
    projector: AnyOutputProjector
    generator: AnyGenerator

    @property
    def feeds_back(self) -> bool:
        """Whether its vectors are made one after another, and each is read before the next; they stand between two
        signals then."""
        return self.projector.feeds_back is not None

    @property
    def reads(self) -> int:
        """How many states of the LLM make one medium."""
        return self.generator.condition.length if self.feeds_back else len(self.signals)

    def build(self, d_model: int) -> nn.Module:
        """The output projector.

        Raises:
            ConfigError: it cannot make what the generator wants of so many tokens.
        """
        return self.projector.build(d_model, len(self.signals), self.generator.condition)

    @model_validator(mode="after")
    def _distinct(self) -> HandConfig:
        if len(set(self.signals)) < len(self.signals):
            raise ValueError(f"signals {list(self.signals)} name a token twice")
        return self
